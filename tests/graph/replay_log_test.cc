// The replay log: prefixes of blocks, what is new cuts what was there, the block not used for
// longest gives way first, and never more than the bound.
#include "graph/replay_log.h"

#include <boost/test/unit_test.hpp>

#include "tests/fakes/random.h"

namespace chainpump::graph {
namespace {

constexpr int32_t kTokens = 4;
constexpr int32_t kFloats = 2;
constexpr int64_t kBlockBytes = kTokens * kFloats * int64_t{sizeof(float)};

struct Log : ReplayLog {
  explicit Log(int64_t max_blocks)
      : ReplayLog({.num_blocks = 16,
                   .block_tokens = kTokens,
                   .row_floats = kFloats,
                   .max_bytes = max_blocks * kBlockBytes + kBlockBytes - 1}) {}
  void put(int32_t block, int32_t offset, float value, bool is_new = true, bool keep = false) {
    const float row[] = {value, -value};
    add(KvBlockId(block), offset, row, is_new, keep);
  }
  std::vector<float> rows(int32_t block) const {
    std::vector<float> out;
    for (int32_t i = 0; i < num_positions(KvBlockId(block)); ++i) {
      const std::span<const float> found = row(KvBlockId(block), i);
      BOOST_TEST(found[1] == -found[0]);
      out.push_back(found[0]);
    }
    return out;
  }
};

using Rows = std::vector<float>;

}  // namespace

BOOST_AUTO_TEST_SUITE(replay_log)

BOOST_AUTO_TEST_CASE(a_prefix_of_each_block_is_kept) {
  Log log(4);
  BOOST_TEST(log.rows(3).empty());
  log.put(3, 0, 1);
  log.put(3, 1, 2);
  log.put(3, 3, 9);  // leaves a gap
  log.put(5, 1, 9);  // does not begin its block
  BOOST_TEST(log.rows(3) == (Rows{1, 2}));
  BOOST_TEST(log.rows(5).empty());
  log.put(3, 0, 7, false);  // known: as it was
  BOOST_TEST(log.rows(3) == (Rows{1, 2}));
  log.put(3, 2, 3, false);  // known, but was not kept
  BOOST_TEST(log.rows(3) == (Rows{1, 2, 3}));
}

BOOST_AUTO_TEST_CASE(what_is_new_cuts_what_somebody_else_left) {
  for (const bool keep : {false, true}) {
    Log log(4);
    for (int i = 0; i < kTokens; ++i) log.put(3, i, static_cast<float>(i));
    log.put(3, 2, 8, true, keep);
    BOOST_TEST(log.rows(3) == (Rows{0, 1, 8}));
    log.put(3, 0, 5, true, keep);
    BOOST_TEST(log.rows(3) == (Rows{5}));
  }
}

BOOST_AUTO_TEST_CASE(the_block_not_used_for_longest_gives_way_first_and_none_while_they_are_kept) {
  Log log(2);
  log.put(1, 0, 1);
  log.put(2, 0, 2);
  log.put(1, 1, 1.5);
  log.put(3, 0, 3, true, true);
  BOOST_TEST(log.rows(3).empty());
  log.put(3, 0, 3);
  BOOST_TEST(log.rows(2).empty());
  BOOST_TEST(log.rows(1) == (Rows{1, 1.5}));
  BOOST_TEST(log.rows(3) == (Rows{3}));
  BOOST_TEST(log.bytes() == 2 * kBlockBytes);
  log.put(4, 0, 4);
  BOOST_TEST(log.rows(1).empty());
}

BOOST_AUTO_TEST_CASE(copies) {
  Log log(3);
  log.put(1, 0, 1);
  log.put(1, 1, 2);
  log.put(2, 0, 7);
  log.copy(KvBlockId(1), KvBlockId(2), false);
  BOOST_TEST(log.rows(2) == (Rows{1, 2}));
  log.put(2, 1, 5);  // its own from here on
  BOOST_TEST(log.rows(2) == (Rows{1, 5}));
  BOOST_TEST(log.rows(1) == (Rows{1, 2}));
  log.copy(KvBlockId(9), KvBlockId(2), false);  // of nothing
  BOOST_TEST(log.rows(2).empty());
  Log one(1);
  one.put(1, 0, 1);
  one.copy(KvBlockId(1), KvBlockId(2), false);
  BOOST_TEST(one.all().size() <= 1u);
  BOOST_TEST(one.rows(2).empty());
}

BOOST_AUTO_TEST_CASE(without_room_nothing_is_kept) {
  Log log(0);
  log.put(1, 0, 1);
  log.copy(KvBlockId(1), KvBlockId(2), false);
  BOOST_TEST(log.all().empty());
  BOOST_TEST(log.bytes() == 0);
}

/// Against a plain map without a bound: what is there is right, and never too much is.
BOOST_AUTO_TEST_CASE(whatever_is_done_a_row_is_what_was_put_there_last) {
  fakes::Random random(11);
  for (int round = 0; round < 50; ++round) {
    const int max_blocks = random.pick(6);
    Log log(max_blocks);
    std::map<int32_t, Rows> truth;
    for (int i = 0; i < 400; ++i) {
      const int32_t block = random.pick(10);
      const bool keep = random.chance(3);
      if (random.chance(12)) {
        const int32_t to = (block + 1 + random.pick(8)) % 10;
        log.copy(KvBlockId(block), KvBlockId(to), keep);
        truth[to] = truth[block];
      } else {
        Rows& rows = truth[block];
        const auto offset = random.chance(8) ? 0 : static_cast<int32_t>(rows.size()) % kTokens;
        rows.resize(static_cast<size_t>(offset));
        rows.push_back(static_cast<float>(i + 1));
        log.put(block, offset, rows.back(), true, keep);
      }
      BOOST_REQUIRE(log.all().size() <= static_cast<size_t>(max_blocks));
      for (const auto& [each, num_positions] : log.all()) {
        const Rows& rows = truth[each.value];
        BOOST_REQUIRE(static_cast<size_t>(num_positions) <= rows.size());
        BOOST_REQUIRE(log.rows(each.value) == Rows(rows.begin(), rows.begin() + num_positions));
      }
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
