// The unit of attention work: up to 32 queries that share one KV head of one sequence, over some of
// its keys, with the layout of a KV block. Plain data for the variants; attention.cc cuts the work.
//
// A block and head, w = stored dimensions (kv_stored_dim), r = elements in a run (1 for f32 and
// f16, 2 for bf16, 4 for int8): K as [w / r][32 tokens][r], so that lanes of a product are
// positions; V as [32 / r][w][r], so that they are dimensions; for int8 the scales K[32], V[32] in
// f32 at the end, and K plus 128. Dimensions past head_dim are stored as zeros; positions not yet
// written may hold anything.
//
// Arithmetic of one query, the same in every variant. Keys are taken in steps of 128 at fixed
// positions; a step stands alone, so that steps may be computed anywhere, and is then merged into
// what came before, steps ascending. With x = q * (scale * log2 e):
//   score   s[j] = sum over d ascending of x[d] * K[d][j]
//             f32, f16: fma; bf16: x rounded to bf16, per pair of d the odd one first, fma
//             int8: x rounded to int8 with one scale, exact integers, then (s * k_scale[j]) *
//             x_scale
//   m       = max of s[j]
//   p[j]    = exp2_weight(s[j] - m), exactly 0 past the query's own position; bf16: rounded to it
//   l       = tree_sum_16 of 16 lanes, lane i the sum of p[i], p[i + 16], .. ascending
//   o[d]    = sum over j ascending of p[j] * V[j][d]
//             f32, f16: fma; bf16: per pair of positions the odd one first, if visible
//             int8: p[j] * v_scale[j] rounded to 15 bits with one scale, exact integers, scaled
//   merge:    M' = max(M, m), a = exp2_weight(M - M'), b = exp2_weight(m - M')
//             L' = fma(l, b, L * a), O'[d] = fma(o[d], b, O[d] * a); from M = -inf, L = O = 0
//   out     = O[d] * (1 / L)
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace chainpump::kernels::cpu {

inline constexpr int kMaxTileQueries = 32;
inline constexpr int kMaxHeadDim = 512;
inline constexpr int kKeyStep = 128;  // keys, a multiple of kKvBlockTokens

struct AttentionTile {
  DType type;
  int32_t head_dim;
  float scale;
  int32_t num_queries;
  const float* q[kMaxTileQueries];    // head_dim each
  float* out[kMaxTileQueries];        // head_dim each
  int32_t position[kMaxTileQueries];  // ascending
  const int32_t* block_table;         // of the sequence
  const std::byte* head_data;         // block 0 of this KV head
  int64_t block_stride;               // bytes from block to block
  int32_t step_begin;                 // steps of this piece of the work
  int32_t step_end;
  /// Null where the piece is the whole: the outputs are written. Else what each step came to, to be
  /// merged later: [step][num_queries][partial_stride], o[d] first, m and l last.
  float* partials;
  int64_t partial_stride;  // floats: stored dimensions + 16
};

/// Tokens that go into one block and KV head.
struct KvAppend {
  DType type;
  int32_t head_dim;
  int32_t offset;  // of the first token in the block
  int32_t count;
  const float* k;  // head_dim each, `stride` floats from token to token
  const float* v;
  int64_t stride;
  std::byte* head;  // the block's part for this head
};

}  // namespace chainpump::kernels::cpu
