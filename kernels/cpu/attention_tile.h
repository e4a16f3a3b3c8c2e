// The unit of attention work: a few queries that share one KV head of one sequence, with the layout
// of a KV block. Plain data for the variants; attention.cc cuts the work into tiles.
//
// Inside a block and head: K as [head_dim][32 tokens] (lanes of a product are positions, so no
// horizontal sum), then V as [32 tokens][head_dim], both in the cache's type.
//
// Arithmetic of one query, the same in every variant, blocks ascending from position 0:
//   s[j]  = fma over d ascending of (q[d] * scale) * K[d][j], 0 at first
//   m'    = max(m, max of s[j] over positions <= own); c = exp(m - m')
//   p[j]  = exp(s[j] - m'), exactly 0 past the query's own position
//   l     = l * c + tree(p[j] + p[j + 16])      (tree_sum_16 of the 16 sums)
//   o[d]  = o[d] * c, then fma over j ascending of p[j] * V[j][d]
//   out   = o[d] * (1 / l)
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace chainpump::kernels::cpu {

inline constexpr int kMaxTileQueries = 8;
inline constexpr int kMaxHeadDim = 512;

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
};

}  // namespace chainpump::kernels::cpu
