// How large a KV block is, for the planner that counts the memory and the kernels that fill it. The
// order of elements inside is the kernels' own (kernels/cpu/attention_tile.h). Pure; any thread.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace chainpump {

/// Tokens per KV block; fixed, because attention splits its keys at these positions.
inline constexpr int kKvBlockTokens = 32;

/// Whether a cache of keys and values may have this element type: f32, bf16, f16, int8.
constexpr bool is_kv_type(DType type) {
  return type == DType::f32 || type == DType::bf16 || type == DType::f16 || type == DType::int8;
}

/// Dimensions of a head as stored: filled up to whole vectors of 16.
constexpr int64_t kv_stored_dim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

/// Bytes of K and V of one block in one layer; int8 adds a f32 scale per position and head to each.
constexpr int64_t kv_block_bytes(DType type, int64_t num_kv_heads, int64_t head_dim) {
  const int64_t element = type == DType::f32 ? 4 : type == DType::int8 ? 1 : 2;
  const int64_t scales = type == DType::int8 ? 4 : 0;
  return 2 * num_kv_heads * kKvBlockTokens * (kv_stored_dim(head_dim) * element + scales);
}

}  // namespace chainpump
