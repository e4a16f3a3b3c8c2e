// Our own exp, log, sin and cos, so that a library version cannot change a bit. Each is the same
// polynomial in scalar and vector form; accuracy is stated beside each. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>

#include "base/ids.h"
#include "kernels/cpu/bands.h"
#include "kernels/cpu/isa.h"

namespace chainpump::kernels::cpu {

float exp_f32(float x);  // <= 2 ulp; 0 below -104, inf above 88.8
double exp_f64(double x);
double log_f64(double x);
struct SinCos {
  float sin;
  float cos;
};
SinCos sin_cos(double angle);  // any |angle| < 2^31; correct to float rounding

/// Index of the largest value, the smallest index on ties. NaN never wins.
TokenId argmax(Isa isa, std::span<const float> values);
/// Each value becomes (value - shift) * factor, in two roundings.
void shift_scale(Isa isa, std::span<float> values, float shift, float factor);
/// log(sum(exp(values))) in a fixed order that does not depend on the ISA's width. Within 1e-7 of
/// the exact value: exp in f32, everything after it in f64.
double log_sum_exp(Isa isa, std::span<const float> values);
/// sums[b]: the sum of exp(value), in f32, of the values that lie b bands of 1 / bands_per_unit
/// below `top`; the last band has all that is further down. In a fixed order in f64, equal for
/// every ISA. No value may be above `top`; a NaN makes the last sum NaN.
void band_sums(Isa isa, std::span<const float> values, float top, float bands_per_unit,
               std::span<double, kNumBands> sums);
/// Whether no value is NaN or infinite.
bool all_finite(std::span<const float> values);
/// Indices of the values in (above, up_to], ascending, to the front of `indices` (as long as
/// `values`); how many. A NaN is in no interval.
size_t select(Isa isa, std::span<const float> values, float above, float up_to,
              std::span<int32_t> indices);

}  // namespace chainpump::kernels::cpu
