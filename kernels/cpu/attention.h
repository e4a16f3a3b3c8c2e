// Causal grouped-query attention over a paged KV cache.
//
// One law: for one query the result depends only on its own q and on keys and values 0..position,
// visited in fixed pieces at fixed positions; decode and prefill give equal bits. K and V are
// rounded to the cache's type when they are appended, before anything reads them.
#pragma once

#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "base/ids.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/team.h"

namespace chainpump::kernels::cpu {

/// Tokens per KV block; fixed, because attention splits its keys at these positions.
inline constexpr int kKvBlockTokens = 32;

/// One layer's share of a stage's block pool. Block b, KV head h starts at
/// data + ((b * num_kv_heads + h) * head_stride); inside it first K then V; the order of elements
/// within is the kernel's own (attention.cc says which), always head_dim * kKvBlockTokens each.
struct KvLayer {
  std::byte* data;
  DType type;  // f32, bf16 or f16
  int64_t num_blocks;
  int32_t num_kv_heads;
  int32_t head_dim;
};
int64_t kv_block_bytes(DType type, int32_t num_kv_heads, int32_t head_dim);  // K and V, one layer

/// One sequence's part of a microbatch: tokens [first_row, first_row + num_tokens) of q/k/v are
/// its positions first_position.. ; block_table covers positions [0, first_position + num_tokens).
struct AttentionSlice {
  int64_t first_row;
  int32_t num_tokens;
  int32_t first_position;
  std::span<const KvBlockId> block_table;
};

/// Writes k, v [num_tokens, num_kv_heads * head_dim] (row stride kv_stride) into the blocks. Every
/// member calls it; a barrier must follow before attention().
void append_kv(Isa isa, TeamMember& member, const KvLayer& kv,
               std::span<const AttentionSlice> slices, const float* k, const float* v,
               int64_t kv_stride);

/// out[row, head, :] = softmax(scale * q K^T) V over positions 0..own. q: [num_tokens,
/// num_heads * head_dim] f32, strides in elements; num_heads a multiple of kv.num_kv_heads. Work is
/// shared over the team by (slice, KV head, query rows). No barrier inside.
void attention(Isa isa, TeamMember& member, const KvLayer& kv,
               std::span<const AttentionSlice> slices, int32_t num_heads, float scale,
               const float* q, int64_t q_stride, float* out, int64_t out_stride);

}  // namespace chainpump::kernels::cpu
