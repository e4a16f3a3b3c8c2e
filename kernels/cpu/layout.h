// How packed weights and converted activations lie in memory, shared by packing, activation
// conversion and every variant of the products. Plain data, no functions that do arithmetic, so
// that files compiled for different instruction sets may all include it.
//
// Weights: panels of 16 rows, rows past the end zero. A panel is one run of memory:
//   int8 form   units of 1, 2 or 8 blocks of 32 columns: the scales of the unit's blocks, then
//               their quants (QuantBits * 64 bytes each), so that a product is one stream through
//               memory. Group g is columns 4g .. 4g+3 of a block; a 64-byte vector holds
//               [row][4 columns], so that 4 activation bytes broadcast meet it in vpdpbusd.
//               4 bits: vector p: group p in the low nibbles, group p + 4 in the high ones.
//               5 bits: the 4 nibble vectors, then one whose byte has bit g = bit 4 of group g.
//               6 bits: the nibble vectors, then two with bits 4..5 of groups 0..3 and 4..7, two
//               bits each. 8 bits: eight vectors, group g in vector g.
//   f32 form    [cols][16] of f32, f16 or bf16
//   bf16 form   [cols / 2 rounded up][16][2] bf16
// Scales of a unit, rows innermost (16 of each):
//   scale       2 blocks: f16 d each                       q4_0 q5_0 q8_0: w = d (q - offset)
//   scale_min   1 block: f16 d, f16 m                      q4_1 q5_1:      w = d q + m
//   k_min       8 blocks: f16 d, f16 dmin, 8 x (u8 sc, u8 mn)  q4_k q5_k:  w = d sc q - dmin mn
//   k6          8 blocks: f16 d, 16 x (s8 sc), 32 bytes of nothing  q6_k:  w = d sc (q - 32)
#pragma once

#include <cstddef>
#include <cstdint>

namespace chainpump::kernels::cpu {

inline constexpr int kPanelRows = 16;
inline constexpr int kBlockCols = 32;
inline constexpr int kGroups = 8;  // of 4 columns in a block

enum class QuantBits : uint8_t { b4 = 4, b5 = 5, b6 = 6, b8 = 8 };
enum class ScaleKind : uint8_t { scale, scale_min, k_min, k6 };
/// By ScaleKind: blocks in a unit, and bytes of its scales.
inline constexpr int64_t kUnitBlocks[] = {2, 1, 8, 8};
inline constexpr int64_t kUnitScaleBytes[] = {64, 64, 320, 320};
enum class PanelKind : uint8_t { quantised, f32, f16, bf16, bf16_pairs };

/// A packed matrix as the kernels see it.
struct PanelView {
  const std::byte* data;
  int64_t panel_bytes;  // from one panel to the next, a multiple of 64
  int64_t rows;
  int64_t cols;
  PanelKind kind;
  QuantBits bits;
  ScaleKind scale_kind;
  int32_t offset_shift;  // offset = 1 << shift for `scale` and `k6`
};

/// Activations of every form lie in tiles of 16 tokens: what is one run of columns of a token (a
/// block of 32 int8, one f32, a pair of bf16) comes [run][token of the tile], so that a full tile
/// is read in one sweep; a tile of t < 16 tokens is [run][t], so that a token alone is contiguous.
inline constexpr int kTileTokens = 16;

struct alignas(16) ActivationMeta {
  float scale;         // x = scale * q; int16: q = 256 high + low
  float scaled_sum;    // scale * (sum of the block's q)
  int32_t neg_sum;     // -(sum of the block's q)
  int32_t neg_sum_lo;  // -(sum of its first 16)
};

/// Activations of 8 bits (one term) or of 16 as two bytes (two terms, high bytes first).
struct Int8View {
  const int8_t* quants;         // [tile][block][t][term][32]
  const ActivationMeta* metas;  // [tile][block][t]
  int64_t num_tokens;
  int64_t num_blocks;
  int num_terms;
};

struct F32View {
  const float* data;  // [tile][col][t]
  int64_t num_tokens;
  int64_t cols;
};

struct Bf16View {
  const uint16_t* data;  // [tile][pair][t][2]
  int64_t num_tokens;
  int64_t num_pairs;
};

/// Where a product goes.
struct Output {
  float* data;
  int64_t stride;
  bool add;
};

}  // namespace chainpump::kernels::cpu
