// What a rank that gives up its place may send the one that takes it (graph/kv_frame.h): the first
// byte says how much of the rest is metadata, what follows is payload. Whatever decodes lies within
// the receiver's limits and encodes to the same bytes again; nothing else may happen than an error.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "base/kv_layout.h"
#include "graph/kv_frame.h"

using namespace chainpump;
using namespace chainpump::graph;

namespace {

using Bytes = std::span<const std::byte>;

const KvFrameLimits kLimits{.lanes = {1, 3},
                            .num_blocks = 10,
                            .layer_begin = 4,
                            .layer_end = 7,
                            .block_bytes = 16,
                            .context_tokens = 96};

bool same(Bytes left, Bytes right) {
  return std::equal(left.begin(), left.end(), right.begin(), right.end());
}

void check(const KvPiece& piece, Bytes metadata, Bytes payload) {
  std::vector<std::byte> again;
  encode(piece, again);
  CHECK(same(again, metadata));
  CHECK(same(piece.bytes, payload));
  CHECK(piece.layer >= kLimits.layer_begin && piece.layer + piece.num_layers <= kLimits.layer_end);
  CHECK(piece.block.value >= 0 && piece.block.value < kLimits.num_blocks);
  CHECK_LE(piece.offset + std::ssize(payload), piece.num_layers * kLimits.block_bytes);
}

void check(const KvSequences& sequences, Bytes metadata, Bytes payload) {
  std::vector<std::byte> head;
  std::vector<std::byte> body(payload.size());
  const auto [count, bytes] = encode(sequences.held, body, head);
  CHECK(same(head, metadata));
  CHECK_EQ(count, sequences.held.size());
  CHECK_EQ(bytes, std::ssize(payload));
  CHECK(same(body, payload));
  for (const auto& held : sequences.held) {
    CHECK(held.num_positions >= 0 && held.num_positions <= kLimits.context_tokens);
    CHECK_LE(held.num_positions, std::ssize(held.table) * kKvBlockTokens);
  }
}

void check(const KvEnd& end, Bytes metadata, Bytes payload) {
  std::vector<std::byte> again;
  encode(end, again);
  CHECK(same(again, metadata));
  CHECK(payload.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Bytes all = std::as_bytes(std::span(data, size));
  const size_t head = all.empty() ? 0 : std::to_integer<size_t>(all[0]);
  const Bytes rest = all.empty() ? all : all.subspan(1);
  const Bytes metadata = rest.first(std::min(head, rest.size()));
  const Bytes payload = rest.subspan(metadata.size());
  const auto frame = decode_kv_frame(metadata, payload, kLimits);
  if (frame.ok()) std::visit([&](const auto& what) { check(what, metadata, payload); }, *frame);
  return 0;
}
