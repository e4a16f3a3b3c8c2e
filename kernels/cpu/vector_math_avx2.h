// exp, sin, cos and sums on 8 lanes, operation for operation as in math_scalar.h and math.cc. For
// the AVX2 files only: everything is internal to the file that includes it.
#pragma once

#include <immintrin.h>

namespace chainpump::kernels::cpu::avx2 {
namespace {

inline __m256 power_of_two(__m256i exponent) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_add_epi32(exponent, _mm256_set1_epi32(127)), 23));
}

inline __m256 exp_vector(__m256 x) {
  // Further out there is nothing but 0 and infinity; a NaN, as the second operand, stays.
  x = _mm256_min_ps(_mm256_set1_ps(89.0f), _mm256_max_ps(_mm256_set1_ps(-104.0f), x));
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145751953125f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860682030941723212e-6f), r);
  __m256 p = _mm256_set1_ps(1.0f / 5040);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  return _mm256_mul_ps(_mm256_mul_ps(p, power_of_two(half)),
                       power_of_two(_mm256_sub_epi32(whole, half)));
}

// As exp2_weight_scalar.
inline __m256 exp2_weight(__m256 x) {
  const __m256 kept = _mm256_cmp_ps(x, _mm256_set1_ps(-64.0f), _CMP_NLT_UQ);
  const __m256 magic = _mm256_set1_ps(12582912.0f);
  const __m256 shifted = _mm256_add_ps(x, magic);
  const __m256 r = _mm256_sub_ps(x, _mm256_sub_ps(shifted, magic));
  __m256 p = _mm256_set1_ps(0x1.5bba12p-10f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.3cea88p-7f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.c6b752p-5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.ebf9bcp-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.62e42ap-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  const __m256i scaled =
      _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(shifted), 23));
  return _mm256_and_ps(_mm256_castsi256_ps(scaled), kept);
}

// As sin_cos in math.cc, in double; the quadrant fits 32 bits.
inline void sin_cos_vector(__m256d angle, __m256d* sine, __m256d* cosine) {
  const auto c = [](double value) { return _mm256_set1_pd(value); };
  const __m256d k = _mm256_round_pd(_mm256_mul_pd(angle, c(0.63661977236758134308)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256d r = _mm256_fnmadd_pd(k, c(1.57079632679489655800), angle);
  r = _mm256_fnmadd_pd(k, c(6.12323399573676603587e-17), r);
  const __m256d z = _mm256_mul_pd(r, r);
  __m256d p = c(1.0 / 355687428096000);
  p = _mm256_fmadd_pd(p, z, c(-1.0 / 1307674368000));
  p = _mm256_fmadd_pd(p, z, c(1.0 / 6227020800));
  p = _mm256_fmadd_pd(p, z, c(-1.0 / 39916800));
  p = _mm256_fmadd_pd(p, z, c(1.0 / 362880));
  p = _mm256_fmadd_pd(p, z, c(-1.0 / 5040));
  p = _mm256_fmadd_pd(p, z, c(1.0 / 120));
  p = _mm256_fmadd_pd(p, z, c(-1.0 / 6));
  const __m256d s = _mm256_fmadd_pd(_mm256_mul_pd(p, z), r, r);
  __m256d q = c(1.0 / 20922789888000);
  q = _mm256_fmadd_pd(q, z, c(-1.0 / 87178291200));
  q = _mm256_fmadd_pd(q, z, c(1.0 / 479001600));
  q = _mm256_fmadd_pd(q, z, c(-1.0 / 3628800));
  q = _mm256_fmadd_pd(q, z, c(1.0 / 40320));
  q = _mm256_fmadd_pd(q, z, c(-1.0 / 720));
  q = _mm256_fmadd_pd(q, z, c(1.0 / 24));
  q = _mm256_fmadd_pd(q, z, c(-0.5));
  q = _mm256_fmadd_pd(q, z, c(1.0));
  // Quadrant k mod 4: odd ones swap; sine is negative in 2 and 3, cosine in 1 and 2.
  const __m256i quadrant = _mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(k));
  const __m256d odd = _mm256_castsi256_pd(_mm256_slli_epi64(quadrant, 63));
  const __m256d upper =
      _mm256_and_pd(_mm256_castsi256_pd(_mm256_slli_epi64(quadrant, 62)), c(-0.0));
  const __m256d swapped_sine = _mm256_blendv_pd(s, q, odd);
  const __m256d swapped_cosine = _mm256_blendv_pd(q, s, odd);
  *sine = _mm256_xor_pd(swapped_sine, upper);
  *cosine = _mm256_xor_pd(swapped_cosine, _mm256_xor_pd(upper, odd));
}

// Lane i with i + 8, then 4, 2, 1: as tree_sum_16 of low and high.
inline float tree_sum(__m256 low, __m256 high) {
  const __m256 eight = _mm256_add_ps(low, high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// The same of 16 lanes in four vectors.
inline double tree_sum(const __m256d* lanes) {
  const __m256d four =
      _mm256_add_pd(_mm256_add_pd(lanes[0], lanes[2]), _mm256_add_pd(lanes[1], lanes[3]));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

inline float largest_lane(__m256 lanes) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

inline float exp_one(float x) { return _mm256_cvtss_f32(exp_vector(_mm256_set1_ps(x))); }

inline __m256i first_lanes(int64_t count) {
  const int clamped = count >= 8 ? 8 : count <= 0 ? 0 : static_cast<int>(count);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(clamped), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

}  // namespace
}  // namespace chainpump::kernels::cpu::avx2
