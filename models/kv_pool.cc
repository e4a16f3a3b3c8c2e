#include "models/kv_pool.h"

#include <cstring>

namespace chainpump::models {

Result<KvPool> KvPool::create(const KvPoolShape& shape) {
  if (!is_kv_type(shape.type)) {
    return make_error(ErrorCode::invalid_argument, "KV type {} is not one of f32, bf16, f16, int8",
                      to_string(shape.type));
  }
  CHECK(shape.num_layers >= 0 && shape.num_blocks >= 1);
  const int64_t block_bytes = kv_block_bytes(shape.type, shape.num_kv_heads, shape.head_dim);
  int64_t layer_bytes = 0;
  int64_t total = 0;
  if (__builtin_mul_overflow(block_bytes, int64_t{shape.num_blocks}, &layer_bytes) ||
      __builtin_mul_overflow(layer_bytes, int64_t{shape.num_layers}, &total)) {
    return make_error(ErrorCode::no_room, "a KV pool of {} blocks is beyond any memory",
                      shape.num_blocks);
  }
  ASSIGN_OR_RETURN(LazyMemory memory, LazyMemory::reserve(total, "the KV pool"));
  return KvPool(shape, layer_bytes, std::move(memory));
}

kernels::cpu::KvLayer KvPool::layer(int32_t index) const {
  CHECK(index >= 0 && index < shape_.num_layers);
  return {memory_.data() + layer_bytes_ * index, shape_.type, shape_.num_blocks,
          shape_.num_kv_heads, shape_.head_dim};
}

std::span<std::byte> KvPool::block(int32_t layer_index, KvBlockId block) const {
  CHECK(block.value >= 0 && block.value < shape_.num_blocks);
  const int64_t block_bytes = layer_bytes_ / shape_.num_blocks;
  return {layer(layer_index).data + block.value * block_bytes, static_cast<size_t>(block_bytes)};
}

void KvPool::copy_block(int32_t layer_index, KvBlockId from, KvBlockId to) const {
  CHECK(from != to);
  const std::span<const std::byte> source = block(layer_index, from);
  std::memcpy(block(layer_index, to).data(), source.data(), source.size());
}

}  // namespace chainpump::models
