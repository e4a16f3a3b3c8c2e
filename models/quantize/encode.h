// Float32 weights into GGUF's weight types, rounded to nearest and without importance data: the
// inverse of kernels/cpu/quant_block.h, which draws the layouts. F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0
// and Q5_1 follow GGML's reference formulas bit for bit, so that a file made here equals one made
// there. K types leave their scales to the encoder: ours searches for the least squared error
// (encode_k.cc). Each block depends on its own values alone, so that a tensor may be cut at any
// block between threads. Pure; any thread.
#pragma once

#include <cstddef>
#include <span>

#include "base/dtype.h"

namespace chainpump::models {

/// Encodes finite `values`, a whole number of `type`'s blocks, into `out`, which has exactly their
/// bytes. What a type's scales cannot hold (f16: 65504) becomes infinite: look at what it decodes
/// to.
void encode(DType type, std::span<const float> values, std::span<std::byte> out);

/// One superblock of 256 values of Q4_K, Q5_K (`type` says which) or Q6_K.
void encode_k45(DType type, const float* values, std::byte* out);
void encode_k6(const float* values, std::byte* out);

}  // namespace chainpump::models
