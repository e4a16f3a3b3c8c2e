// One stage's KV blocks: for each of its layers an array of `num_blocks` blocks in the layout that
// the attention kernel wants (kernels/cpu/attention.h). Memory is committed as blocks are first
// written. Which block belongs to which sequence is models/sequence_table.h's business.
// One owner; its user orders reads and writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "base/ids.h"
#include "base/result.h"
#include "kernels/cpu/attention.h"
#include "models/lazy_memory.h"

namespace chainpump::models {

struct KvPoolShape {
  DType type = DType::f32;  // f32, bf16, f16 or int8
  int32_t num_layers = 0;
  int32_t num_blocks = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
};

class KvPool {
 public:
  /// invalid_argument for a type that no kernel reads; no_room.
  static Result<KvPool> create(const KvPoolShape& shape);

  kernels::cpu::KvLayer layer(int32_t index) const;
  /// What one layer has of a block, K and V and scales.
  std::span<std::byte> block(int32_t layer_index, KvBlockId block) const;
  /// Makes block `to` of one layer equal to block `from`, scales included. Threads may share out
  /// the layers.
  void copy_block(int32_t layer_index, KvBlockId from, KvBlockId to) const;
  int64_t bytes() const { return memory_.bytes(); }

 private:
  KvPool(const KvPoolShape& shape, int64_t layer_bytes, LazyMemory memory)
      : shape_(shape), layer_bytes_(layer_bytes), memory_(std::move(memory)) {}

  KvPoolShape shape_;
  int64_t layer_bytes_;
  LazyMemory memory_;
};

}  // namespace chainpump::models
