// Our own exp, log, sin and cos, so that a library version cannot change a bit. Each is the same
// polynomial in scalar and vector form; accuracy is stated beside each. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>

#include "base/ids.h"
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
/// log(sum(exp(values))) in a fixed order that does not depend on the ISA's width. Within 1e-7 of
/// the exact value: exp in f32, everything after it in f64.
double log_sum_exp(Isa isa, std::span<const float> values);
/// Indices of the values in (above, up_to], ascending, to the front of `indices` (as long as
/// `values`); how many. A NaN is in no interval.
size_t select(Isa isa, std::span<const float> values, float above, float up_to,
              std::span<int32_t> indices);

}  // namespace chainpump::kernels::cpu
