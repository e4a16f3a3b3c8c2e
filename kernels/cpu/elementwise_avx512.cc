// Conversions of activations and row-wise operations, 16 lanes. All are bound by reading and
// writing their rows, which lie in L1 or L2 where the layer before left them.
#include <immintrin.h>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/block_range.h"
#include "kernels/cpu/vector_math_avx512.h"

namespace chainpump::kernels::cpu::avx512 {
namespace {

inline __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : (1 << count) - 1);
}

inline __m512i magnitude_bits(__m512 x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}

inline BlockRange range_of(__m512 x0, __m512 x1) {
  return block_range(static_cast<uint32_t>(
      _mm512_reduce_max_epi32(_mm512_max_epi32(magnitude_bits(x0), magnitude_bits(x1)))));
}

}  // namespace

void quantize_row(const float* x, int64_t num_blocks, int64_t step, int8_t* quants,
                  ActivationMeta* metas) {
  for (int64_t b = 0; b < num_blocks; ++b) {
    const __m512 x0 = _mm512_loadu_ps(x + b * 32);
    const __m512 x1 = _mm512_loadu_ps(x + b * 32 + 16);
    const BlockRange range = range_of(x0, x1);
    const __m512 inverse = _mm512_set1_ps(inverse_of(range, kInt8Steps));
    const auto mask = static_cast<__mmask16>(range.usable ? 0xffff : 0);
    const __m512i q0 = _mm512_maskz_cvtps_epi32(mask, _mm512_mul_ps(x0, inverse));
    const __m512i q1 = _mm512_maskz_cvtps_epi32(mask, _mm512_mul_ps(x1, inverse));
    int8_t* out = quants + b * step * kBlockCols;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(q0));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16), _mm512_cvtepi32_epi8(q1));
    metas[b * step] =
        meta_of(range, kInt8Steps, _mm512_reduce_add_epi32(q0), _mm512_reduce_add_epi32(q1));
  }
}

void quantize_row_int16(const float* x, int64_t num_blocks, int64_t step, int8_t* quants,
                        ActivationMeta* metas) {
  for (int64_t b = 0; b < num_blocks; ++b) {
    const __m512 v[2] = {_mm512_loadu_ps(x + b * 32), _mm512_loadu_ps(x + b * 32 + 16)};
    const BlockRange range = range_of(v[0], v[1]);
    const __m512 inverse = _mm512_set1_ps(inverse_of(range, kInt16Steps));
    const auto mask = static_cast<__mmask16>(range.usable ? 0xffff : 0);
    int8_t* out = quants + b * step * 2 * kBlockCols;
    int sums[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m512i a = _mm512_maskz_cvtps_epi32(mask, _mm512_mul_ps(v[i], inverse));
      const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(a, _mm512_set1_epi32(128)), 8);
      const __m512i times256 = _mm512_slli_epi32(high, 8);
      const __m512i low = _mm512_max_epi32(_mm512_sub_epi32(a, times256), _mm512_set1_epi32(-127));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * i), _mm512_cvtepi32_epi8(high));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + kBlockCols + 16 * i),
                       _mm512_cvtepi32_epi8(low));
      sums[i] = _mm512_reduce_add_epi32(_mm512_add_epi32(times256, low));
    }
    metas[b * step] = meta_of(range, kInt16Steps, sums[0], sums[1]);
  }
}

void round_row_bf16(const float* x, int64_t cols, int64_t step, uint16_t* out) {
  for (int64_t c = 0; c < cols; c += 16) {
    const int64_t count = cols - c < 16 ? cols - c : 16;
    const __m512 v = _mm512_maskz_loadu_ps(first_lanes(count), x + c);
    // Integer rounding as in base/half.h; vcvtneps2bf16 would flush subnormal numbers.
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(
        _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    rounded =
        _mm512_mask_or_epi32(rounded, nan, _mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
    alignas(32) uint32_t pairs[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(pairs), _mm512_cvtepi32_epi16(rounded));
    auto* to = reinterpret_cast<uint32_t*>(out) + c / 2 * step;
    for (int64_t p = 0; 2 * p < count; ++p) to[p * step] = pairs[p];
  }
}

void rms_norm_row(const float* x, const float* weight, float eps, int64_t cols, float* out) {
  __m512 lanes = _mm512_setzero_ps();
  for (int64_t c = 0; c < cols; c += 16) {
    const __m512 v = _mm512_maskz_loadu_ps(first_lanes(cols - c), x + c);
    lanes = _mm512_fmadd_ps(v, v, lanes);
  }
  const float mean = tree_sum(lanes) / static_cast<float>(cols);
  const float inverse = 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean + eps)));
  const __m512 factor = _mm512_set1_ps(inverse);
  for (int64_t c = 0; c < cols; c += 16) {
    const __mmask16 mask = first_lanes(cols - c);
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + c), factor);
    _mm512_mask_storeu_ps(out + c, mask, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, weight + c)));
  }
}

void rope_turns(int32_t position, const float* frequencies, int64_t count, float magnitude,
                float* cos, float* sin) {
  const __m256 factor = _mm256_set1_ps(magnitude);
  for (int64_t i = 0; i < count; i += 8) {
    const auto mask = static_cast<__mmask8>(first_lanes(count - i) & 0xff);
    const __m256 angle = _mm256_mul_ps(_mm256_set1_ps(static_cast<float>(position)),
                                       _mm256_maskz_loadu_ps(mask, frequencies + i));
    __m512d sine;
    __m512d cosine;
    sin_cos_vector(_mm512_cvtps_pd(angle), &sine, &cosine);
    _mm256_mask_storeu_ps(cos + i, mask, _mm256_mul_ps(_mm512_cvtpd_ps(cosine), factor));
    _mm256_mask_storeu_ps(sin + i, mask, _mm256_mul_ps(_mm512_cvtpd_ps(sine), factor));
  }
}

void rope_turn(float* a, float* b, int64_t step, const float* cos, const float* sin,
               int64_t count) {
  if (step == 1) {
    for (int64_t i = 0; i < count; i += 16) {
      const __mmask16 mask = first_lanes(count - i);
      const __m512 first = _mm512_maskz_loadu_ps(mask, a + i);
      const __m512 second = _mm512_maskz_loadu_ps(mask, b + i);
      const __m512 c = _mm512_maskz_loadu_ps(mask, cos + i);
      const __m512 s = _mm512_maskz_loadu_ps(mask, sin + i);
      _mm512_mask_storeu_ps(a + i, mask,
                            _mm512_sub_ps(_mm512_mul_ps(first, c), _mm512_mul_ps(second, s)));
      _mm512_mask_storeu_ps(b + i, mask,
                            _mm512_add_ps(_mm512_mul_ps(first, s), _mm512_mul_ps(second, c)));
    }
    return;
  }
  // Pairs side by side: x' = x cos + swap(x) (-sin, sin), the same roundings.
  const __m512i doubled = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
  const __m512 signs = _mm512_castsi512_ps(_mm512_set1_epi64(0x80000000));
  for (int64_t i = 0; i < count; i += 8) {
    const auto eight = static_cast<__mmask8>(first_lanes(count - i) & 0xff);
    const __mmask16 mask = first_lanes(2 * (count - i));
    const __m512 c = _mm512_permutexvar_ps(
        doubled, _mm512_castps256_ps512(_mm256_maskz_loadu_ps(eight, cos + i)));
    const __m512 s = _mm512_permutexvar_ps(
        doubled, _mm512_castps256_ps512(_mm256_maskz_loadu_ps(eight, sin + i)));
    const __m512 x = _mm512_maskz_loadu_ps(mask, a + 2 * i);
    const __m512 turned = _mm512_add_ps(
        _mm512_mul_ps(x, c), _mm512_mul_ps(_mm512_permute_ps(x, 0xb1), _mm512_xor_ps(s, signs)));
    _mm512_mask_storeu_ps(a + 2 * i, mask, turned);
  }
}

void silu_mul(const float* gate, const float* up, int64_t count, float* out) {
  const __m512 one = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = first_lanes(count - i);
    const __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
    const __m512 e = exp_vector(_mm512_xor_ps(g, _mm512_set1_ps(-0.0f)));
    const __m512 silu = _mm512_div_ps(g, _mm512_add_ps(one, e));
    _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(mask, up + i)));
  }
}

int64_t argmax(const float* values, int64_t count) {
  const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
  __m512 best = lowest;
  for (int64_t i = 0; i < count; i += 16) {
    const __m512 v = _mm512_mask_loadu_ps(lowest, first_lanes(count - i), values + i);
    best = _mm512_max_ps(v, best);  // the second operand where v is NaN
  }
  const __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(best));
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = first_lanes(count - i);
    const __mmask16 equal =
        _mm512_mask_cmp_ps_mask(mask, _mm512_maskz_loadu_ps(mask, values + i), largest, _CMP_EQ_OQ);
    if (equal != 0) return i + __builtin_ctz(equal);
  }
  return 0;  // nothing but NaN
}

double sum_exp(const float* values, int64_t count, float largest) {
  __m512d low = _mm512_setzero_pd();
  __m512d high = _mm512_setzero_pd();
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = first_lanes(count - i);
    const __m512 v = _mm512_maskz_loadu_ps(mask, values + i);
    const __m512 all = exp_vector(_mm512_sub_ps(v, _mm512_set1_ps(largest)));
    const __m512 e = _mm512_maskz_mov_ps(mask, all);
    low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(e)));
    high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(e, 1)));
  }
  return tree_sum(low, high);
}

int64_t select(const float* values, int64_t count, float above, float up_to, int32_t* indices) {
  const __m512 low = _mm512_set1_ps(above);
  const __m512 high = _mm512_set1_ps(up_to);
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  int64_t found = 0;
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = first_lanes(count - i);
    const __m512 v = _mm512_maskz_loadu_ps(mask, values + i);
    const __mmask16 in = _mm512_mask_cmp_ps_mask(_mm512_mask_cmp_ps_mask(mask, v, low, _CMP_GT_OQ),
                                                 v, high, _CMP_LE_OQ);
    if (in == 0) continue;
    // In a register, then stored: compressing into memory is many times slower on Zen 4.
    const __m512i index = _mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int>(i)));
    const int num = __builtin_popcount(in);
    _mm512_mask_storeu_epi32(indices + found, first_lanes(num),
                             _mm512_maskz_compress_epi32(in, index));
    found += num;
  }
  return found;
}

}  // namespace chainpump::kernels::cpu::avx512
