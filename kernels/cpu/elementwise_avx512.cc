// Conversions of activations, row-wise operations and the sampler's passes over a vocabulary, 16
// lanes. Rows lie in L1 or L2, where the layer before left them. Bounds: conversions and rope the
// vector operations per element; rms_norm the latency of one chain of fma, as the order of its sum
// is fixed; silu_mul, sum_exp and band_sums the 16 operations of an exp; argmax, shift_scale and
// select reading from L2.
// Reached on one Zen4 thread (`chainpump bench kernels`), us per token: rms_norm of 576 columns
// 0.09, to int8 0.12, to int16 0.24, rope 0.09, silu_mul of 1,536 0.50. Of 49,152 logits: argmax
// and shift_scale 3 each, sum_exp 16, band_sums 28 (its additions one by one alone: 14, of
// which half hides behind the exp).
#include <immintrin.h>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/bands.h"
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

// One block of 32.
void quantize_one(const float* x, int8_t* out, ActivationMeta* meta) {
  const __m512 x0 = _mm512_loadu_ps(x);
  const __m512 x1 = _mm512_loadu_ps(x + 16);
  const BlockRange range = range_of(x0, x1);
  const __m512 inverse = _mm512_set1_ps(inverse_of(range, kInt8Steps));
  const auto mask = static_cast<__mmask16>(range.usable ? 0xffff : 0);
  const __m512i q0 = _mm512_maskz_cvtps_epi32(mask, _mm512_mul_ps(x0, inverse));
  const __m512i q1 = _mm512_maskz_cvtps_epi32(mask, _mm512_mul_ps(x1, inverse));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(q0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16), _mm512_cvtepi32_epi8(q1));
  *meta = meta_of(range, kInt8Steps, _mm512_reduce_add_epi32(q0), _mm512_reduce_add_epi32(q1));
}

constexpr int kFour = 4;  // blocks that share their reductions and divisions

inline __m512i larger_pairs(__m512i a, __m512i b) {
  return _mm512_max_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

// The largest lane of each of four vectors, none negative.
inline __m128i largest_of(const __m512i* v) {
  const __m512i ab = larger_pairs(v[0], v[1]);
  const __m512i cd = larger_pairs(v[2], v[3]);
  const __m512i lanes =
      _mm512_max_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  const __m256i half =
      _mm256_max_epi32(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64(lanes, 1));
  return _mm_max_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

// 64 columns as bytes in their order.
inline __m512i to_bytes(const __m512i* q) {
  const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  const __m512i packed =
      _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
  return _mm512_permutexvar_epi32(order, packed);
}

// Sums of 16 bytes each, plus 16 * 128, in the even dwords of the four 128-bit lanes.
inline __m512i sum_sixteens(__m512i bytes) {
  const __m512i offset = _mm512_xor_si512(bytes, _mm512_set1_epi8(static_cast<char>(0x80)));
  const __m512i sums = _mm512_sad_epu8(offset, _mm512_setzero_si512());
  return _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_BADC));
}

// The metas of four blocks as vectors, to the first `count` of their places.
void store_metas(__m128 scale, __m128i first, __m128i total, int count, int64_t step,
                 ActivationMeta* metas) {
  const __m128i zero = _mm_setzero_si128();
  __m128 r0 = scale;
  __m128 r1 = _mm_mul_ps(scale, _mm_cvtepi32_ps(total));
  __m128 r2 = _mm_castsi128_ps(_mm_sub_epi32(zero, total));
  __m128 r3 = _mm_castsi128_ps(_mm_sub_epi32(zero, first));
  _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
  const __m128 rows[kFour] = {r0, r1, r2, r3};
  for (int i = 0; i < count; ++i) _mm_store_ps(reinterpret_cast<float*>(metas + i * step), rows[i]);
}

// Up to four blocks of 32, bits as of quantize_one(); false, with nothing done, if one of them has
// no usable range.
inline bool quantize_four(const float* x, int count, int64_t step, int8_t* quants,
                          ActivationMeta* metas) {
  __m512 v[2 * kFour];
  __m512i largest[kFour];
#pragma GCC unroll 4
  for (int i = 0; i < kFour; ++i) {
    const float* in = x + (i < count ? i : 0) * kBlockCols;
    v[2 * i] = _mm512_loadu_ps(in);
    v[2 * i + 1] = _mm512_loadu_ps(in + 16);
    largest[i] = _mm512_max_epi32(magnitude_bits(v[2 * i]), magnitude_bits(v[2 * i + 1]));
  }
  const __m128i bits = largest_of(largest);
  const __m128 magnitude = _mm_castsi128_ps(bits);
  const __mmask8 usable = _mm_cmp_ps_mask(magnitude, _mm_set1_ps(1e-30f), _CMP_GE_OQ) &
                          _mm_cmplt_epi32_mask(bits, _mm_set1_epi32(0x7f800000));
  if (usable != 0xf) return false;
  const __m128 inverse = _mm_div_ps(_mm_set1_ps(kInt8Steps), magnitude);
  __m512i q[2 * kFour];
#pragma GCC unroll 8
  for (int i = 0; i < 2 * kFour; ++i) {
    const __m512 factor = _mm512_broadcastss_ps(_mm_permutevar_ps(inverse, _mm_set1_epi32(i / 2)));
    q[i] = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], factor));
  }
  const __m512i bytes[2] = {to_bytes(q), to_bytes(q + 4)};
  const __m256i parts[kFour] = {
      _mm512_castsi512_si256(bytes[0]), _mm512_extracti64x4_epi64(bytes[0], 1),
      _mm512_castsi512_si256(bytes[1]), _mm512_extracti64x4_epi64(bytes[1], 1)};
  for (int i = 0; i < count; ++i)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(quants + i * step * kBlockCols), parts[i]);
  // The sums of the four first halves, then of the four second.
  const __m512i pick = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 28, 20, 12, 4, 24, 16, 8, 0);
  const __m256i sums = _mm512_castsi512_si256(
      _mm512_permutex2var_epi32(sum_sixteens(bytes[0]), pick, sum_sixteens(bytes[1])));
  const __m128i offset = _mm_set1_epi32(16 * 128);
  const __m128i first = _mm_sub_epi32(_mm256_castsi256_si128(sums), offset);
  const __m128i second = _mm_sub_epi32(_mm256_extracti128_si256(sums, 1), offset);
  store_metas(_mm_div_ps(magnitude, _mm_set1_ps(kInt8Steps)), first, _mm_add_epi32(first, second),
              count, step, metas);
  return true;
}

}  // namespace

void quantize_row(const float* x, int64_t num_blocks, int64_t step, int8_t* quants,
                  ActivationMeta* metas) {
  for (int64_t b = 0; b < num_blocks; b += kFour) {
    const int count = static_cast<int>(num_blocks - b < kFour ? num_blocks - b : kFour);
    int8_t* out = quants + b * step * kBlockCols;
    if (quantize_four(x + b * kBlockCols, count, step, out, metas + b * step)) continue;
    for (int i = 0; i < count; ++i)
      quantize_one(x + (b + i) * kBlockCols, out + i * step * kBlockCols, metas + (b + i) * step);
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
  constexpr int kChains = 4;
  const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
  __m512 best[kChains] = {lowest, lowest, lowest, lowest};
  int64_t i = 0;
  for (; i + 16 * kChains <= count; i += 16 * kChains)
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c)  // the second operand where v is NaN
      best[c] = _mm512_max_ps(_mm512_loadu_ps(values + i + 16 * c), best[c]);
  for (; i < count; i += 16)
    best[0] =
        _mm512_max_ps(_mm512_mask_loadu_ps(lowest, first_lanes(count - i), values + i), best[0]);
  best[0] = _mm512_max_ps(_mm512_max_ps(best[0], best[1]), _mm512_max_ps(best[2], best[3]));
  const __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(best[0]));
  for (i = 0; i < count; i += 16) {
    const __mmask16 mask = first_lanes(count - i);
    const __mmask16 equal =
        _mm512_mask_cmp_ps_mask(mask, _mm512_maskz_loadu_ps(mask, values + i), largest, _CMP_EQ_OQ);
    if (equal != 0) return i + __builtin_ctz(equal);
  }
  return 0;  // nothing but NaN
}

void shift_scale(float* values, int64_t count, float shift, float factor) {
  const auto scaled = [&](__m512 v) {
    return _mm512_mul_ps(_mm512_sub_ps(v, _mm512_set1_ps(shift)), _mm512_set1_ps(factor));
  };
  int64_t i = 0;
  // Whole vectors without a mask: a masked store takes several times as long.
  for (; i + 16 <= count; i += 16)
    _mm512_storeu_ps(values + i, scaled(_mm512_loadu_ps(values + i)));
  const __mmask16 mask = first_lanes(count - i);
  _mm512_mask_storeu_ps(values + i, mask, scaled(_mm512_maskz_loadu_ps(mask, values + i)));
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

// Vector work for some values and scalar additions for earlier ones go side by side: either alone
// would leave half of the core idle.
void band_sums(const float* values, int64_t count, float top, float bands_per_unit, double* lanes) {
  const __m512i last = _mm512_set1_epi32(kNumBands - 1);
  const __m512i lane = _mm512_set_epi32(3, 2, 1, 0, 3, 2, 1, 0, 3, 2, 1, 0, 3, 2, 1, 0);
  const __m512i first_of_lane = _mm512_mullo_epi32(lane, _mm512_set1_epi32(kNumBands));
  alignas(64) double weights[kBandsAhead][16];
  alignas(64) uint16_t at[kBandsAhead][16];
  const auto weigh = [&](__m512 v, int64_t slot) {
    const __m512 e = exp_vector(v);
    _mm512_store_pd(weights[slot], _mm512_cvtps_pd(_mm512_castps512_ps256(e)));
    _mm512_store_pd(weights[slot] + 8, _mm512_cvtps_pd(_mm512_extractf32x8_ps(e, 1)));
    const __m512 below =
        _mm512_mul_ps(_mm512_sub_ps(_mm512_set1_ps(top), v), _mm512_set1_ps(bands_per_unit));
    // What is no int32 becomes 2^31, the largest as unsigned numbers go.
    const __m512i band = _mm512_min_epu32(_mm512_cvttps_epi32(below), last);
    _mm256_store_si256(reinterpret_cast<__m256i*>(at[slot]),
                       _mm512_cvtepi32_epi16(_mm512_add_epi32(band, first_of_lane)));
  };
  const auto add = [&](int64_t slot) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) lanes[at[slot][i]] += weights[slot][i];
  };
  const int64_t whole = count / 16;
  for (int64_t v = 0; v < whole; ++v) {
    const int64_t slot = v % kBandsAhead;
    if (v >= kBandsAhead) add(slot);
    weigh(_mm512_loadu_ps(values + 16 * v), slot);
  }
  for (int64_t v = whole < kBandsAhead ? 0 : whole - kBandsAhead; v < whole; ++v)
    add(v % kBandsAhead);
  weigh(_mm512_maskz_loadu_ps(first_lanes(count % 16), values + 16 * whole), 0);
  for (int64_t i = 0; i < count % 16; ++i) lanes[at[0][i]] += weights[0][i];
}

int64_t select(const float* values, int64_t count, float above, float up_to, int32_t* indices) {
  const __m512 low = _mm512_set1_ps(above);
  const __m512 high = _mm512_set1_ps(up_to);
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const auto which = [&](__mmask16 mask, __m512 v) {
    return _mm512_mask_cmp_ps_mask(_mm512_mask_cmp_ps_mask(mask, v, low, _CMP_GT_OQ), v, high,
                                   _CMP_LE_OQ);
  };
  int64_t found = 0;
  int64_t i = 0;
  // Whole vectors, without asking whether anything was found: nobody could guess the answer. What
  // is stored past the found ones lies within `indices`, as found <= i. In a register, then stored:
  // compressing into memory is many times slower on Zen 4.
  for (; i + 16 <= count; i += 16) {
    const __mmask16 in = which(0xffff, _mm512_loadu_ps(values + i));
    const __m512i index = _mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int>(i)));
    _mm512_storeu_si512(indices + found, _mm512_maskz_compress_epi32(in, index));
    found += __builtin_popcount(in);
  }
  const __mmask16 mask = first_lanes(count - i);
  const __mmask16 in = which(mask, _mm512_maskz_loadu_ps(mask, values + i));
  const __m512i index = _mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int>(i)));
  const int num = __builtin_popcount(in);
  _mm512_mask_storeu_epi32(indices + found, first_lanes(num),
                           _mm512_maskz_compress_epi32(in, index));
  return found + num;
}

}  // namespace chainpump::kernels::cpu::avx512
