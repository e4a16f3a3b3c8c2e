// Causal grouped-query attention over a paged KV cache.
//
// One law: for one query the result depends only on its own q and on keys and values 0..position,
// visited in fixed steps at fixed positions that are merged in order; decode and prefill give equal
// bits, whoever computes which step. K and V are rounded to the cache's type when they are
// appended, before anything reads them; with bf16 and int8 the products take q and the weights
// rounded as well (attention_tile.h has the arithmetic).
#pragma once

#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "base/ids.h"
#include "base/kv_layout.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/team.h"

namespace chainpump::kernels::cpu {

/// One layer's share of a stage's block pool. Block b, KV head h starts at
/// data + (b * num_kv_heads + h) * (kv_block_bytes() / num_kv_heads), aligned to 64; the order of
/// elements within is the kernel's own (attention_tile.h).
struct KvLayer {
  std::byte* data;
  DType type;  // f32, bf16, f16 or int8
  int64_t num_blocks;
  int32_t num_kv_heads;
  int32_t head_dim;
};

/// One sequence's part of a microbatch: tokens [first_row, first_row + num_tokens) of q/k/v are
/// its positions first_position.. ; block_table covers positions [0, first_position + num_tokens).
struct AttentionSlice {
  int64_t first_row;
  int32_t num_tokens;
  int32_t first_position;
  std::span<const KvBlockId> block_table;
};

/// Floats of working memory that a team's calls of attention() share: up to one tile per border
/// between two members, each up to the whole context. What is not needed is never touched.
int64_t attention_scratch_floats(int num_threads, int32_t context_tokens, int32_t head_dim);

/// Writes k, v [num_tokens, num_kv_heads * head_dim] (row stride kv_stride) into the blocks. Every
/// member calls it; a barrier must follow before attention().
void append_kv(Isa isa, TeamMember& member, const KvLayer& kv,
               std::span<const AttentionSlice> slices, const float* k, const float* v,
               int64_t kv_stride);

/// out[row, head, :] = softmax(scale * q K^T) V over positions 0..own. q: [num_tokens,
/// num_heads * head_dim] f32, strides in elements; num_heads a multiple of kv.num_kv_heads. Work is
/// shared over the team by (slice, KV head, query rows) and, where a border falls inside, by steps
/// of keys, by way of `scratch` (attention_scratch_floats() or more). Every member calls it; with
/// such a border there is a barrier inside.
void attention(Isa isa, TeamMember& member, const KvLayer& kv,
               std::span<const AttentionSlice> slices, int32_t num_heads, float scale,
               const float* q, int64_t q_stride, float* out, int64_t out_stride,
               std::span<float> scratch);

}  // namespace chainpump::kernels::cpu
