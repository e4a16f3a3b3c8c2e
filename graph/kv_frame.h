// What one rank sends another that is to take its place (graph/rank_move.h): the metadata of frames
// of kind `kv`, little endian, over a link of their own. First come pieces, each as it is when it
// is sent, a block perhaps several times; then, from a rank whose lanes are cut, who holds what of
// them, and the end.
//
//   kind 1, a piece      u8 kind, u8 lane, u16 zero, i32 block (of the lane), i32 layer (of the
//                        model), i32 layers, i64 offset
//                        payload: what the block has in these layers, one after the other; of one
//                        layer alone from `offset` on
//   kind 2, sequences    u8 kind, u8 zero, u16 zero, u32 count
//                        payload: of each u64 id, u64 identity, u32 index, i32 positions, and the
//                        i32 blocks (of the lane) in which they lie
//   kind 3, the end      u8 kind, u8 zero, u16 zero, u32 sequences, u64 pieces: that were sent
//
// Everything is checked against what the receiver's own plan says. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "graph/lane_fill.h"

namespace chainpump::graph {

inline constexpr int64_t kKvFrameMetadataBytes = 24;

struct KvPiece {
  uint8_t lane = 0;
  KvBlockId block;
  int32_t layer = 0;
  int32_t num_layers = 1;
  int64_t offset = 0;
  std::span<const std::byte> bytes = {};  // of the payload
};
struct KvSequences {
  std::vector<StageHoldings::Held> held;
};
struct KvEnd {
  uint32_t num_sequences = 0;
  uint64_t num_pieces = 0;
  bool operator==(const KvEnd&) const = default;
};
using KvFrame = std::variant<KvPiece, KvSequences, KvEnd>;

/// What the receiver has room for.
struct KvFrameLimits {
  std::vector<uint8_t> lanes;  // that it serves
  int32_t num_blocks = 0;      // of each
  int32_t layer_begin = 0;     // that are copied
  int32_t layer_end = 0;
  int64_t block_bytes = 0;  // of a block in one layer
  int32_t context_tokens = 0;
};

/// The metadata; `bytes` is the sender's to write into the payload.
void encode(const KvPiece& piece, std::vector<std::byte>& metadata);
void encode(const KvEnd& end, std::vector<std::byte>& metadata);
/// As many of them, from `first` on, as `payload` has room for: the metadata, and how much was
/// written. Each has room in an empty one.
struct KvSequencesWritten {
  size_t count = 0;
  int64_t bytes = 0;
};
KvSequencesWritten encode(std::span<const StageHoldings::Held> held, std::span<std::byte> payload,
                          std::vector<std::byte>& metadata);
/// The most bytes that a sequence of so many positions takes.
int64_t kv_sequence_bytes(int32_t num_positions);

/// invalid_argument: not such a frame, or beyond the limits.
Result<KvFrame> decode_kv_frame(std::span<const std::byte> metadata,
                                std::span<const std::byte> payload, const KvFrameLimits& limits);

}  // namespace chainpump::graph
