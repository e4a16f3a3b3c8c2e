// The scalar forms of our elementary functions, inline for the reference kernels. The vector forms
// (vector_math_*.h) perform the same operations in the same order, so that bits are equal; a test
// compares them. Included only by files compiled for the generic machine. Pure; any thread.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace chainpump::kernels::cpu {

inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2High = 0.693145751953125f;  // 15 bits, so that n * high is exact
inline constexpr float kLn2Low = 1.42860682030941723212e-6f;
inline constexpr float kExpLowest = -104.0f;
inline constexpr float kExpHighest = 88.8f;

/// exp(x) = 2^n exp(r), |r| <= ln2 / 2, exp(r) by its Taylor series to r^7 (remainder 5e-9).
inline float exp_scalar(float x) {
  if (!(x >= kExpLowest)) return std::isnan(x) ? x : 0.0f;
  if (x > kExpHighest) return std::bit_cast<float>(0x7f800000u);
  const float n = std::nearbyintf(x * kLog2E);
  float r = std::fma(n, -kLn2High, x);
  r = std::fma(n, -kLn2Low, r);
  float p = 1.0f / 5040;
  p = std::fma(p, r, 1.0f / 720);
  p = std::fma(p, r, 1.0f / 120);
  p = std::fma(p, r, 1.0f / 24);
  p = std::fma(p, r, 1.0f / 6);
  p = std::fma(p, r, 0.5f);
  p = std::fma(p, r, 1.0f);
  p = std::fma(p, r, 1.0f);
  // 2^n in two factors: either is a normal number, the product may be subnormal or infinite.
  const int whole = static_cast<int>(n);
  const int half = whole >> 1;
  const float low = std::bit_cast<float>(static_cast<uint32_t>(half + 127) << 23);
  const float high = std::bit_cast<float>(static_cast<uint32_t>(whole - half + 127) << 23);
  return p * low * high;
}

/// 2^x for x <= 1, exactly 0 below -64: a softmax weight whose products stay normal numbers. x = n
/// + r, |r| <= 1/2, 2^r as 1 + r q(r) with the q of degree 4 that is nearest in relative error
/// (9e-8).
inline float exp2_weight_scalar(float x) {
  if (x < -64.0f) return 0.0f;
  const float shifted = x + 12582912.0f;  // 1.5 * 2^23: the integer n stands in the low bits
  const float r = x - (shifted - 12582912.0f);
  float p = 0x1.5bba12p-10f;
  p = std::fma(p, r, 0x1.3cea88p-7f);
  p = std::fma(p, r, 0x1.c6b752p-5f);
  p = std::fma(p, r, 0x1.ebf9bcp-3f);
  p = std::fma(p, r, 0x1.62e42ap-1f);
  p = std::fma(p, r, 1.0f);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) +
                              (std::bit_cast<uint32_t>(shifted) << 23));
}

/// Sum of 16 lanes as a fixed tree: lane i with i + 8, then 4, 2, 1.
template <typename Real>
inline Real tree_sum_16(const Real* lanes) {
  Real sums[8];
  for (int i = 0; i < 8; ++i) sums[i] = lanes[i] + lanes[i + 8];
  for (int i = 0; i < 4; ++i) sums[i] += sums[i + 4];
  for (int i = 0; i < 2; ++i) sums[i] += sums[i + 2];
  return sums[0] + sums[1];
}

}  // namespace chainpump::kernels::cpu
