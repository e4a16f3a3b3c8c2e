// Conversions of activations, row-wise operations and the sampler's passes over a vocabulary, 8
// lanes; sums keep 16 lanes in two vectors, so that bits equal the other variants. Bounds as in
// elementwise_avx512.cc: an exp is 19 operations here, on half as many values.
// Reached on one Zen4 thread, of 49,152 logits: argmax 6 us, shift_scale 3, sum_exp 29, band_sums
// 42; a draw of all 63, with top-p 81.
#include <immintrin.h>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/bands.h"
#include "kernels/cpu/block_range.h"
#include "kernels/cpu/vector_math_avx2.h"

namespace chainpump::kernels::cpu::avx2 {
namespace {

inline __m256i magnitude_bits(const float* x) {
  return _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x)), _mm256_set1_epi32(0x7fffffff));
}

inline int largest_int(__m256i lanes) {
  const __m128i four =
      _mm_max_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
  const __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

inline int sum_int(__m256i lanes) {
  const __m128i four =
      _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

inline BlockRange range_of(const float* x) {
  return block_range(static_cast<uint32_t>(largest_int(
      _mm256_max_epi32(_mm256_max_epi32(magnitude_bits(x), magnitude_bits(x + 8)),
                       _mm256_max_epi32(magnitude_bits(x + 16), magnitude_bits(x + 24))))));
}

// 32 values of four vectors to bytes, in order.
inline __m256i narrow(const __m256i* q) {
  const __m256i packed =
      _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
  return _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// The first `count` of 8 lanes. Whole vectors without a mask: a masked store takes many times as
// long.
inline void store_first(float* to, int64_t count, __m256 v) {
  if (count >= 8)
    _mm256_storeu_ps(to, v);
  else
    _mm256_maskstore_ps(to, first_lanes(count), v);
}

}  // namespace

void quantize_row(const float* x, int64_t num_blocks, int64_t step, int8_t* quants,
                  ActivationMeta* metas) {
  for (int64_t b = 0; b < num_blocks; ++b, x += kBlockCols) {
    const BlockRange range = range_of(x);
    const __m256 inverse = _mm256_set1_ps(inverse_of(range, kInt8Steps));
    const __m256i keep = _mm256_set1_epi32(range.usable ? -1 : 0);
    __m256i q[4];
    for (int i = 0; i < 4; ++i)
      q[i] = _mm256_and_si256(
          _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inverse)), keep);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(quants + b * step * kBlockCols), narrow(q));
    metas[b * step] = meta_of(range, kInt8Steps, sum_int(_mm256_add_epi32(q[0], q[1])),
                              sum_int(_mm256_add_epi32(q[2], q[3])));
  }
}

void quantize_row_int16(const float* x, int64_t num_blocks, int64_t step, int8_t* quants,
                        ActivationMeta* metas) {
  for (int64_t b = 0; b < num_blocks; ++b, x += kBlockCols) {
    const BlockRange range = range_of(x);
    const __m256 inverse = _mm256_set1_ps(inverse_of(range, kInt16Steps));
    const __m256i keep = _mm256_set1_epi32(range.usable ? -1 : 0);
    __m256i high[4];
    __m256i low[4];
    int sums[2] = {0, 0};
    for (int i = 0; i < 4; ++i) {
      const __m256i a = _mm256_and_si256(
          _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inverse)), keep);
      high[i] = _mm256_srai_epi32(_mm256_add_epi32(a, _mm256_set1_epi32(128)), 8);
      const __m256i times256 = _mm256_slli_epi32(high[i], 8);
      low[i] = _mm256_max_epi32(_mm256_sub_epi32(a, times256), _mm256_set1_epi32(-127));
      sums[i / 2] += sum_int(_mm256_add_epi32(times256, low[i]));
    }
    auto* out = reinterpret_cast<__m256i*>(quants + b * step * 2 * kBlockCols);
    _mm256_storeu_si256(out, narrow(high));
    _mm256_storeu_si256(out + 1, narrow(low));
    metas[b * step] = meta_of(range, kInt16Steps, sums[0], sums[1]);
  }
}

void rms_norm_row(const float* x, const float* weight, float eps, int64_t cols, float* out) {
  __m256 lanes[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  for (int64_t c = 0; c < cols; c += 8) {
    const __m256 v = _mm256_maskload_ps(x + c, first_lanes(cols - c));
    __m256& sum = lanes[c / 8 % 2];
    sum = _mm256_fmadd_ps(v, v, sum);
  }
  const float mean = tree_sum(lanes[0], lanes[1]) / static_cast<float>(cols);
  const float inverse = 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean + eps)));
  const __m256 factor = _mm256_set1_ps(inverse);
  for (int64_t c = 0; c < cols; c += 8) {
    const __m256i mask = first_lanes(cols - c);
    const __m256 v = _mm256_mul_ps(_mm256_maskload_ps(x + c, mask), factor);
    store_first(out + c, cols - c, _mm256_mul_ps(v, _mm256_maskload_ps(weight + c, mask)));
  }
}

void rope_turns(int32_t position, const float* frequencies, int64_t count, float magnitude,
                float* cos, float* sin) {
  const __m128 factor = _mm_set1_ps(magnitude);
  for (int64_t i = 0; i < count; i += 4) {
    const __m128i mask = _mm256_castsi256_si128(first_lanes(count - i));
    const __m128 angle = _mm_mul_ps(_mm_set1_ps(static_cast<float>(position)),
                                    _mm_maskload_ps(frequencies + i, mask));
    __m256d sine;
    __m256d cosine;
    sin_cos_vector(_mm256_cvtps_pd(angle), &sine, &cosine);
    _mm_maskstore_ps(cos + i, mask, _mm_mul_ps(_mm256_cvtpd_ps(cosine), factor));
    _mm_maskstore_ps(sin + i, mask, _mm_mul_ps(_mm256_cvtpd_ps(sine), factor));
  }
}

void rope_turn(float* a, float* b, int64_t step, const float* cos, const float* sin,
               int64_t count) {
  if (step == 1) {
    for (int64_t i = 0; i < count; i += 8) {
      const __m256i mask = first_lanes(count - i);
      const __m256 first = _mm256_maskload_ps(a + i, mask);
      const __m256 second = _mm256_maskload_ps(b + i, mask);
      const __m256 c = _mm256_maskload_ps(cos + i, mask);
      const __m256 s = _mm256_maskload_ps(sin + i, mask);
      store_first(a + i, count - i,
                  _mm256_sub_ps(_mm256_mul_ps(first, c), _mm256_mul_ps(second, s)));
      store_first(b + i, count - i,
                  _mm256_add_ps(_mm256_mul_ps(first, s), _mm256_mul_ps(second, c)));
    }
    return;
  }
  // Pairs side by side: x' = x cos + swap(x) (-sin, sin), the same roundings.
  const __m256i doubled = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
  for (int64_t i = 0; i < count; i += 4) {
    const __m128i four = _mm256_castsi256_si128(first_lanes(count - i));
    const __m256i mask = first_lanes(2 * (count - i));
    const __m256 c =
        _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_maskload_ps(cos + i, four)), doubled);
    const __m256 s =
        _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_maskload_ps(sin + i, four)), doubled);
    const __m256 x = _mm256_maskload_ps(a + 2 * i, mask);
    const __m256 turned =
        _mm256_addsub_ps(_mm256_mul_ps(x, c), _mm256_mul_ps(_mm256_permute_ps(x, 0xb1), s));
    store_first(a + 2 * i, 2 * (count - i), turned);
  }
}

void silu_mul(const float* gate, const float* up, int64_t count, float* out) {
  const __m256 one = _mm256_set1_ps(1.0f);
  for (int64_t i = 0; i < count; i += 8) {
    const __m256i mask = first_lanes(count - i);
    const __m256 g = _mm256_maskload_ps(gate + i, mask);
    const __m256 e = exp_vector(_mm256_xor_ps(g, _mm256_set1_ps(-0.0f)));
    const __m256 silu = _mm256_div_ps(g, _mm256_add_ps(one, e));
    store_first(out + i, count - i, _mm256_mul_ps(silu, _mm256_maskload_ps(up + i, mask)));
  }
}

int64_t argmax(const float* values, int64_t count) {
  const __m256 lowest = _mm256_set1_ps(-__builtin_inff());
  __m256 best = lowest;
  for (int64_t i = 0; i < count; i += 8) {
    const __m256i mask = first_lanes(count - i);
    const __m256 v =
        _mm256_blendv_ps(lowest, _mm256_maskload_ps(values + i, mask), _mm256_castsi256_ps(mask));
    best = _mm256_max_ps(v, best);  // the second operand where v is NaN
  }
  const __m256 largest = _mm256_set1_ps(largest_lane(best));
  for (int64_t i = 0; i < count; i += 8) {
    const __m256i mask = first_lanes(count - i);
    const __m256 equal =
        _mm256_and_ps(_mm256_cmp_ps(_mm256_maskload_ps(values + i, mask), largest, _CMP_EQ_OQ),
                      _mm256_castsi256_ps(mask));
    const int bits = _mm256_movemask_ps(equal);
    if (bits != 0) return i + __builtin_ctz(static_cast<unsigned>(bits));
  }
  return 0;  // nothing but NaN
}

void shift_scale(float* values, int64_t count, float shift, float factor) {
  for (int64_t i = 0; i < count; i += 8) {
    const __m256 v = _mm256_maskload_ps(values + i, first_lanes(count - i));
    store_first(values + i, count - i,
                _mm256_mul_ps(_mm256_sub_ps(v, _mm256_set1_ps(shift)), _mm256_set1_ps(factor)));
  }
}

double sum_exp(const float* values, int64_t count, float largest) {
  __m256d lanes[4];
  for (__m256d& four : lanes) four = _mm256_setzero_pd();
  const auto add = [&](__m256 v, __m256i mask, int half) {
    const __m256 all = exp_vector(_mm256_sub_ps(v, _mm256_set1_ps(largest)));
    const __m256 e = _mm256_and_ps(all, _mm256_castsi256_ps(mask));
    __m256d* sums = lanes + 2 * half;
    sums[0] = _mm256_add_pd(sums[0], _mm256_cvtps_pd(_mm256_castps256_ps128(e)));
    sums[1] = _mm256_add_pd(sums[1], _mm256_cvtps_pd(_mm256_extractf128_ps(e, 1)));
  };
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    add(_mm256_loadu_ps(values + i), _mm256_set1_epi32(-1), 0);
    add(_mm256_loadu_ps(values + i + 8), _mm256_set1_epi32(-1), 1);
  }
  for (int half = 0; half < 2; ++half) {
    const __m256i mask = first_lanes(count - i - 8 * half);
    add(_mm256_maskload_ps(values + i + 8 * half, mask), mask, half);
  }
  return tree_sum(lanes);
}

// Vector work for some values and scalar additions for earlier ones go side by side: either alone
// would leave half of the core idle.
void band_sums(const float* values, int64_t count, float top, float bands_per_unit, double* lanes) {
  const __m256i last = _mm256_set1_epi32(kNumBands - 1);
  const __m256i lane = _mm256_set_epi32(3, 2, 1, 0, 3, 2, 1, 0);
  const __m256i first_of_lane = _mm256_mullo_epi32(lane, _mm256_set1_epi32(kNumBands));
  alignas(32) double weights[kBandsAhead][8];
  alignas(32) int32_t at[kBandsAhead][8];
  const auto weigh = [&](__m256 v, int64_t slot) {
    const __m256 e = exp_vector(v);
    _mm256_store_pd(weights[slot], _mm256_cvtps_pd(_mm256_castps256_ps128(e)));
    _mm256_store_pd(weights[slot] + 4, _mm256_cvtps_pd(_mm256_extractf128_ps(e, 1)));
    const __m256 below =
        _mm256_mul_ps(_mm256_sub_ps(_mm256_set1_ps(top), v), _mm256_set1_ps(bands_per_unit));
    // What is no int32 becomes 2^31, the largest as unsigned numbers go.
    const __m256i band = _mm256_min_epu32(_mm256_cvttps_epi32(below), last);
    _mm256_store_si256(reinterpret_cast<__m256i*>(at[slot]), _mm256_add_epi32(band, first_of_lane));
  };
  const auto add = [&](int64_t slot) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) lanes[at[slot][i]] += weights[slot][i];
  };
  const int64_t whole = count / 8;
  for (int64_t v = 0; v < whole; ++v) {
    const int64_t slot = v % kBandsAhead;
    if (v >= kBandsAhead) add(slot);
    weigh(_mm256_loadu_ps(values + 8 * v), slot);
  }
  for (int64_t v = whole < kBandsAhead ? 0 : whole - kBandsAhead; v < whole; ++v)
    add(v % kBandsAhead);
  weigh(_mm256_maskload_ps(values + 8 * whole, first_lanes(count % 8)), 0);
  for (int64_t i = 0; i < count % 8; ++i) lanes[at[0][i]] += weights[0][i];
}

int64_t select(const float* values, int64_t count, float above, float up_to, int32_t* indices) {
  const __m256 low = _mm256_set1_ps(above);
  const __m256 high = _mm256_set1_ps(up_to);
  int64_t found = 0;
  for (int64_t i = 0; i < count; i += 8) {
    const __m256i mask = first_lanes(count - i);
    const __m256 v = _mm256_maskload_ps(values + i, mask);
    const __m256 in =
        _mm256_and_ps(_mm256_cmp_ps(v, low, _CMP_GT_OQ), _mm256_cmp_ps(v, high, _CMP_LE_OQ));
    auto bits =
        static_cast<unsigned>(_mm256_movemask_ps(_mm256_and_ps(in, _mm256_castsi256_ps(mask))));
    for (; bits != 0; bits &= bits - 1)
      indices[found++] = static_cast<int32_t>(i) + __builtin_ctz(bits);
  }
  return found;
}

}  // namespace chainpump::kernels::cpu::avx2
