// exp and sums on 16 lanes, operation for operation as in math_scalar.h. For the AVX-512 files
// only: everything is internal to the file that includes it.
#pragma once

#include <immintrin.h>

namespace chainpump::kernels::cpu::avx512 {
namespace {

inline __m512 exp_vector(__m512 x) {
  // Further out there is nothing but 0 and infinity; a NaN, as the second operand, stays.
  x = _mm512_min_ps(_mm512_set1_ps(89.0f), _mm512_max_ps(_mm512_set1_ps(-104.0f), x));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145751953125f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860682030941723212e-6f), r);
  __m512 p = _mm512_set1_ps(1.0f / 5040);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);  // p * 2^n, rounded once
}

// As exp2_weight_scalar.
inline __m512 exp2_weight(__m512 x) {
  const __mmask16 kept = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-64.0f), _CMP_NLT_UQ);
  const __m512 magic = _mm512_set1_ps(12582912.0f);
  const __m512 shifted = _mm512_add_ps(x, magic);
  const __m512 r = _mm512_sub_ps(x, _mm512_sub_ps(shifted, magic));
  __m512 p = _mm512_set1_ps(0x1.5bba12p-10f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.3cea88p-7f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.c6b752p-5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ebf9bcp-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62e42ap-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_castsi512_ps(_mm512_maskz_add_epi32(
      kept, _mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
}

// As sin_cos in math.cc, in double.
inline void sin_cos_vector(__m512d angle, __m512d* sine, __m512d* cosine) {
  const auto c = [](double value) { return _mm512_set1_pd(value); };
  const __m512d k = _mm512_roundscale_pd(_mm512_mul_pd(angle, c(0.63661977236758134308)),
                                         _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512d r = _mm512_fnmadd_pd(k, c(1.57079632679489655800), angle);
  r = _mm512_fnmadd_pd(k, c(6.12323399573676603587e-17), r);
  const __m512d z = _mm512_mul_pd(r, r);
  __m512d p = c(1.0 / 355687428096000);
  p = _mm512_fmadd_pd(p, z, c(-1.0 / 1307674368000));
  p = _mm512_fmadd_pd(p, z, c(1.0 / 6227020800));
  p = _mm512_fmadd_pd(p, z, c(-1.0 / 39916800));
  p = _mm512_fmadd_pd(p, z, c(1.0 / 362880));
  p = _mm512_fmadd_pd(p, z, c(-1.0 / 5040));
  p = _mm512_fmadd_pd(p, z, c(1.0 / 120));
  p = _mm512_fmadd_pd(p, z, c(-1.0 / 6));
  const __m512d s = _mm512_fmadd_pd(_mm512_mul_pd(p, z), r, r);
  __m512d q = c(1.0 / 20922789888000);
  q = _mm512_fmadd_pd(q, z, c(-1.0 / 87178291200));
  q = _mm512_fmadd_pd(q, z, c(1.0 / 479001600));
  q = _mm512_fmadd_pd(q, z, c(-1.0 / 3628800));
  q = _mm512_fmadd_pd(q, z, c(1.0 / 40320));
  q = _mm512_fmadd_pd(q, z, c(-1.0 / 720));
  q = _mm512_fmadd_pd(q, z, c(1.0 / 24));
  q = _mm512_fmadd_pd(q, z, c(-0.5));
  q = _mm512_fmadd_pd(q, z, c(1.0));
  // Quadrant k mod 4: odd ones swap; sine is negative in 2 and 3, cosine in 1 and 2.
  const __m512i quadrant = _mm512_cvtpd_epi64(k);
  const __mmask8 odd = _mm512_test_epi64_mask(quadrant, _mm512_set1_epi64(1));
  const __mmask8 upper = _mm512_test_epi64_mask(quadrant, _mm512_set1_epi64(2));
  const __m512d minus = c(-0.0);
  const __m512d swapped_sine = _mm512_mask_mov_pd(s, odd, q);
  const __m512d swapped_cosine = _mm512_mask_mov_pd(q, odd, s);
  *sine = _mm512_mask_xor_pd(swapped_sine, upper, swapped_sine, minus);
  *cosine = _mm512_mask_xor_pd(swapped_cosine, upper ^ odd, swapped_cosine, minus);
}

// Lane i with i + 8, then 4, 2, 1: as tree_sum_16.
inline float tree_sum(__m512 lanes) {
  const __m256 eight =
      _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// The same of 16 lanes in two vectors.
inline double tree_sum(__m512d low, __m512d high) {
  const __m512d eight = _mm512_add_pd(low, high);
  const __m256d four =
      _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

inline float largest_lane(__m512 lanes) { return _mm512_reduce_max_ps(lanes); }

}  // namespace
}  // namespace chainpump::kernels::cpu::avx512
