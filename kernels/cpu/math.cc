#include "kernels/cpu/math.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/check.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/math_scalar.h"

namespace chainpump::kernels::cpu {
namespace {

constexpr double kLn2HighF64 = 6.93147180369123816490e-01;  // 33 bits: n * high is exact
constexpr double kLn2LowF64 = 1.90821492927058770002e-10;

// Taylor series; |r| <= pi/4, remainders below 2^-55.
double sin_poly(double r) {
  const double z = r * r;
  double p = 1.0 / 355687428096000;
  p = std::fma(p, z, -1.0 / 1307674368000);
  p = std::fma(p, z, 1.0 / 6227020800);
  p = std::fma(p, z, -1.0 / 39916800);
  p = std::fma(p, z, 1.0 / 362880);
  p = std::fma(p, z, -1.0 / 5040);
  p = std::fma(p, z, 1.0 / 120);
  p = std::fma(p, z, -1.0 / 6);
  return std::fma(p * z, r, r);
}

double cos_poly(double r) {
  const double z = r * r;
  double p = 1.0 / 20922789888000;
  p = std::fma(p, z, -1.0 / 87178291200);
  p = std::fma(p, z, 1.0 / 479001600);
  p = std::fma(p, z, -1.0 / 3628800);
  p = std::fma(p, z, 1.0 / 40320);
  p = std::fma(p, z, -1.0 / 720);
  p = std::fma(p, z, 1.0 / 24);
  p = std::fma(p, z, -0.5);
  return std::fma(p, z, 1.0);
}

}  // namespace

float exp_f32(float x) { return exp_scalar(x); }

double exp_f64(double x) {
  if (!(x >= -746.0)) return std::isnan(x) ? x : 0.0;
  if (x > 709.8) return std::bit_cast<double>(uint64_t{0x7ff} << 52);
  const double n = std::nearbyint(x * 1.4426950408889634074);
  double r = std::fma(n, -kLn2HighF64, x);
  r = std::fma(n, -kLn2LowF64, r);
  double p = 0;
  double factorial = 6227020800.0;  // 13!
  for (int k = 13; k >= 0; --k) {
    p = std::fma(p, r, 1.0 / factorial);
    if (k > 0) factorial /= k;
  }
  const int64_t whole = static_cast<int64_t>(n);
  const int64_t half = whole >> 1;
  const double low = std::bit_cast<double>(static_cast<uint64_t>(half + 1023) << 52);
  const double high = std::bit_cast<double>(static_cast<uint64_t>(whole - half + 1023) << 52);
  return p * low * high;
}

double log_f64(double x) {
  if (std::isnan(x) || x < 0) return std::bit_cast<double>(uint64_t{0x7ff8} << 48);
  if (x == 0) return std::bit_cast<double>(uint64_t{0xfff} << 52);
  if (std::isinf(x)) return x;
  int64_t exponent = 0;
  if (x < 0x1.0p-1022) {
    x *= 0x1.0p54;
    exponent = -54;
  }
  // x = 2^exponent * m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s).
  const uint64_t bits = std::bit_cast<uint64_t>(x) - 0x3fe6a09e667f3bcd;
  exponent += static_cast<int64_t>(bits) >> 52;
  const uint64_t mantissa = (bits & 0xfffffffffffff) + 0x3fe6a09e667f3bcd;
  const double f = std::bit_cast<double>(mantissa) - 1.0;
  const double s = f / (2.0 + f);
  const double z = s * s;
  double p = 1.0 / 23;
  for (int k = 21; k >= 3; k -= 2) p = std::fma(p, z, 1.0 / k);
  const double n = static_cast<double>(exponent);
  const double tail = std::fma(n, kLn2LowF64, 2.0 * s * z * p);
  return std::fma(n, kLn2HighF64, 2.0 * s + tail);
}

SinCos sin_cos(double angle) {
  // pi/2 in two parts of 53 bits; each product is exact inside its fma.
  const double k = std::nearbyint(angle * 0.63661977236758134308);
  double r = std::fma(k, -1.57079632679489655800, angle);
  r = std::fma(k, -6.12323399573676603587e-17, r);
  const double s = sin_poly(r);
  const double c = cos_poly(r);
  switch (static_cast<int64_t>(k) & 3) {
    case 0:
      return {static_cast<float>(s), static_cast<float>(c)};
    case 1:
      return {static_cast<float>(c), static_cast<float>(-s)};
    case 2:
      return {static_cast<float>(-s), static_cast<float>(-c)};
    default:
      return {static_cast<float>(-c), static_cast<float>(s)};
  }
}

TokenId argmax(Isa isa, std::span<const float> values) {
  CHECK(!values.empty());
  return static_cast<TokenId>(
      kernel_table(isa).argmax(values.data(), static_cast<int64_t>(values.size())));
}

void shift_scale(Isa isa, std::span<float> values, float shift, float factor) {
  kernel_table(isa).shift_scale(values.data(), static_cast<int64_t>(values.size()), shift, factor);
}

double log_sum_exp(Isa isa, std::span<const float> values) {
  CHECK(!values.empty());
  const KernelTable& table = kernel_table(isa);
  const auto count = static_cast<int64_t>(values.size());
  const float largest = values[static_cast<size_t>(table.argmax(values.data(), count))];
  if (std::isinf(largest)) return static_cast<double>(largest);
  const double sum = table.sum_exp(values.data(), count, largest);
  return static_cast<double>(largest) + log_f64(sum);
}

void band_sums(Isa isa, std::span<const float> values, float top, float bands_per_unit,
               std::span<double, kNumBands> sums) {
  double lanes[kBandLanes * kNumBands] = {};
  kernel_table(isa).band_sums(values.data(), static_cast<int64_t>(values.size()), top,
                              bands_per_unit, lanes);
  for (size_t half = kBandLanes * kNumBands / 2; half >= kNumBands; half /= 2)
    for (size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  std::copy_n(lanes, kNumBands, sums.begin());
}

bool all_finite(std::span<const float> values) {
  // Whole groups without a branch inside become vector code on every machine.
  constexpr size_t kGroup = 32;
  const auto is_not = [](float value) -> uint32_t {
    return (std::bit_cast<uint32_t>(value) & 0x7f800000) == 0x7f800000;
  };
  uint32_t found[kGroup] = {};
  size_t at = 0;
  for (; at + kGroup <= values.size(); at += kGroup)
    for (size_t i = 0; i < kGroup; ++i) found[i] |= is_not(values[at + i]);
  for (; at < values.size(); ++at) found[0] |= is_not(values[at]);
  uint32_t any = 0;
  for (const uint32_t one : found) any |= one;
  return any == 0;
}

size_t select(Isa isa, std::span<const float> values, float above, float up_to,
              std::span<int32_t> indices) {
  CHECK_GE(indices.size(), values.size());
  return static_cast<size_t>(kernel_table(isa).select(
      values.data(), static_cast<int64_t>(values.size()), above, up_to, indices.data()));
}

}  // namespace chainpump::kernels::cpu
