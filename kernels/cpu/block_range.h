// How a block of 32 activations becomes integers: the scalar part, which every variant shares.
// Static and without the standard library, so that each file gets it for its own instruction set.
#pragma once

#include <cstdint>

#include "kernels/cpu/layout.h"

namespace chainpump::kernels::cpu {

inline constexpr float kInt8Steps = 127.0f;     // the largest quant of one byte
inline constexpr float kInt16Steps = 32512.0f;  // of two, each at most 127: 127 * 256

/// What a block of activations is scaled by.
struct BlockRange {
  float magnitude;  // the largest
  bool usable;      // else all quants are zero: not a number stays one through the scale alone
};

/// `largest`: the largest of the magnitudes' bits, where NaN is larger than everything.
static inline BlockRange block_range(uint32_t largest) {
  const auto magnitude = __builtin_bit_cast(float, largest);
  return {magnitude, magnitude >= 1e-30f && largest < 0x7f800000};
}

static inline float inverse_of(const BlockRange& range, float steps) {
  return range.usable ? steps / range.magnitude : 0.0f;
}

/// `first` and `second`: sums of the quants of columns 0..15 and 16..31.
static inline ActivationMeta meta_of(const BlockRange& range, float steps, int32_t first,
                                     int32_t second) {
  ActivationMeta meta{};
  meta.scale = range.magnitude < 1e-30f ? 0.0f : range.magnitude / steps;
  meta.scaled_sum = meta.scale * static_cast<float>(first + second);
  meta.neg_sum = -(first + second);
  meta.neg_sum_lo = -first;
  return meta;
}

}  // namespace chainpump::kernels::cpu
