// What frames of a copy say, read again; and that nothing is taken that the receiver has no room
// for.
#include "graph/kv_frame.h"

#include <boost/test/unit_test.hpp>

namespace chainpump::graph {
namespace {

using Bytes = std::vector<std::byte>;

const KvFrameLimits kLimits{.lanes = {1, 3},
                            .num_blocks = 10,
                            .layer_begin = 4,
                            .layer_end = 7,
                            .block_bytes = 100,
                            .context_tokens = 96};

StageHoldings::Held held(uint64_t id, int32_t num_positions, std::vector<int32_t> blocks) {
  StageHoldings::Held held{.id = SequenceId(uint64_t{1} << 56 | id),
                           .num_positions = num_positions,
                           .identity = 7 * id,
                           .index = 2};
  for (const int32_t block : blocks) held.table.emplace_back(block);
  return held;
}

bool takes(const KvPiece& piece, size_t size) {
  Bytes metadata;
  encode(piece, metadata);
  BOOST_TEST(std::ssize(metadata) == kKvFrameMetadataBytes);
  return decode_kv_frame(metadata, Bytes(size), kLimits).ok();
}

bool takes(const std::vector<StageHoldings::Held>& sequences) {
  Bytes metadata;
  Bytes payload(1000);
  const auto [count, bytes] = encode(sequences, payload, metadata);
  BOOST_TEST(count == sequences.size());
  return decode_kv_frame(metadata, std::span(payload).first(static_cast<size_t>(bytes)), kLimits)
      .ok();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(kv_frame)

BOOST_AUTO_TEST_CASE(each_is_read_as_it_was_written) {
  Bytes metadata;
  encode(KvPiece{.lane = 3, .block = KvBlockId(9), .layer = 6, .num_layers = 1, .offset = 40},
         metadata);
  Bytes payload(60, std::byte{5});
  const auto frame = decode_kv_frame(metadata, payload, kLimits);
  BOOST_TEST_REQUIRE(frame.ok());
  const auto& piece = std::get<KvPiece>(*frame);
  BOOST_TEST((piece.lane == 3 && piece.block == KvBlockId(9) && piece.layer == 6));
  BOOST_TEST((piece.num_layers == 1 && piece.offset == 40 && piece.bytes.data() == payload.data()));

  metadata.clear();
  encode(KvEnd{.num_sequences = 5, .num_pieces = 1ull << 40}, metadata);
  BOOST_TEST((std::get<KvEnd>(*decode_kv_frame(metadata, {}, kLimits)) == KvEnd{5, 1ull << 40}));

  // As many as there is room for, then the others.
  const std::vector<StageHoldings::Held> all = {held(1, 64, {3, 9}), held(2, 0, {}),
                                                held(3, 65, {0, 1, 2})};
  payload.assign(60, std::byte{});
  metadata.clear();
  const auto [count, bytes] = encode(all, payload, metadata);
  BOOST_TEST(count == 2u);
  const auto read =
      decode_kv_frame(metadata, std::span(payload).first(static_cast<size_t>(bytes)), kLimits);
  BOOST_TEST_REQUIRE(read.ok());
  const auto& sequences = std::get<KvSequences>(*read).held;
  BOOST_TEST_REQUIRE(sequences.size() == 2u);
  BOOST_TEST((sequences[0].id == all[0].id && sequences[0].table == all[0].table));
  BOOST_TEST((sequences[0].identity == 7u && sequences[0].index == 2u));
  BOOST_TEST((sequences[1].num_positions == 0 && sequences[1].table.empty()));
  BOOST_TEST(kv_sequence_bytes(65) == 36);
}

BOOST_AUTO_TEST_CASE(what_is_beyond_the_receivers_room_is_refused) {
  const KvPiece good{.lane = 1, .block = KvBlockId(0), .layer = 4, .num_layers = 3};
  BOOST_TEST(takes(good, 300));
  BOOST_TEST(!takes(good, 299));
  const auto but = [&](auto change, size_t size) {
    KvPiece piece = good;
    change(piece);
    return takes(piece, size);
  };
  BOOST_TEST(!but([](KvPiece& p) { p.lane = 2; }, 300));
  BOOST_TEST(!but([](KvPiece& p) { p.block = KvBlockId(10); }, 300));
  BOOST_TEST(!but([](KvPiece& p) { p.block = KvBlockId(-1); }, 300));
  BOOST_TEST(!but([](KvPiece& p) { p.layer = 3; }, 300));
  BOOST_TEST(!but([](KvPiece& p) { p.layer = 5; }, 300));
  BOOST_TEST(!but([](KvPiece& p) { p.num_layers = 0; }, 0));
  BOOST_TEST(!but([](KvPiece& p) { p.num_layers = INT32_MAX; }, 300));
  BOOST_TEST(!but([](KvPiece& p) { p.offset = 1; }, 300));
  const auto one = [&](int64_t offset, size_t size) {
    return but(
        [&](KvPiece& p) {
          p.num_layers = 1;
          p.offset = offset;
        },
        size);
  };
  BOOST_TEST(one(90, 10));
  BOOST_TEST(!one(90, 11));
  BOOST_TEST(!one(90, 0));
  BOOST_TEST(!one(-1, 10));
  BOOST_TEST(!one(INT64_MAX, 10));

  BOOST_TEST(takes({held(1, 96, {1, 2, 3})}));
  BOOST_TEST(!takes({held(1, 97, {1, 2, 3, 4})}));
  BOOST_TEST(!takes({held(1, 33, {1, 10})}));
  BOOST_TEST(!takes({held(1, 33, {1, -1})}));
  StageHoldings::Held other_lane = held(1, 1, {1});
  other_lane.id = SequenceId(uint64_t{2} << 56);
  BOOST_TEST(!takes({other_lane}));
}

BOOST_AUTO_TEST_CASE(nothing_is_read_beyond_what_came) {
  Bytes whole;
  Bytes payload(200);
  const auto [count, bytes] =
      encode(std::vector{held(1, 64, {3, 9}), held(2, 1, {4})}, payload, whole);
  payload.resize(static_cast<size_t>(bytes));
  BOOST_TEST(count == 2u);
  for (size_t size = 0; size < whole.size(); ++size)
    BOOST_TEST(!decode_kv_frame(std::span(whole).first(size), payload, kLimits).ok());
  for (size_t size = 0; size < payload.size(); ++size)
    BOOST_TEST(!decode_kv_frame(whole, std::span(payload).first(size), kLimits).ok());
  payload.push_back({});
  BOOST_TEST(!decode_kv_frame(whole, payload, kLimits).ok());
  payload.pop_back();
  for (const size_t at : {size_t{0}, size_t{1}, size_t{2}, size_t{7}}) {  // kind, reserved, count
    Bytes damaged = whole;
    damaged[at] = std::byte{0x40};
    BOOST_TEST(!decode_kv_frame(damaged, payload, kLimits).ok());
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
