// What attention on AVX-512 does per query rather than per key: rounding the query, the softmax of
// a step, merging steps. For attention_avx512.cc only: everything is internal to it.
#pragma once

#include "kernels/cpu/attention_products_avx512.h"
#include "kernels/cpu/vector_math_avx512.h"

namespace chainpump::kernels::cpu::avx512 {
namespace {

// Weights of int8: p * v_scale in 15 bits of the largest, the high and the low byte apart.
inline void round_weights(__m512* p, int vectors, int i, State& state) {
  __m512i best = _mm512_setzero_si512();  // as bits: NaN is larger than everything
  for (int v = 0; v < vectors; ++v)
    best = _mm512_max_epu32(
        best, _mm512_and_si512(_mm512_castps_si512(p[v]), _mm512_set1_epi32(0x7fffffff)));
  const auto bits = static_cast<int>(_mm512_reduce_max_epu32(best));
  const float magnitude = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(bits)));
  const bool usable = magnitude >= 1e-30f && bits < 0x7f800000;
  const __m512 inverse = _mm512_set1_ps(usable ? kWeightLevels / magnitude : 0.0f);
  const __mmask16 kept = usable ? 0xffff : 0;
  state.weight_scale[i] = magnitude / kWeightLevels;
  auto* bytes = reinterpret_cast<__m128i*>(state.p[i]);
  for (int v = 0; v < vectors; ++v) {
    const __m512 level = _mm512_mul_ps(p[v], inverse);
    const __m512i whole = _mm512_maskz_cvtps_epi32(kept, level);
    _mm_store_si128(bytes + v, _mm512_cvtepi32_epi8(_mm512_srli_epi32(whole, 8)));
    _mm_store_si128(bytes + kKeyStep / 16 + v, _mm512_cvtepi32_epi8(whole));
  }
  for (int v = vectors; v < kKeyStep / 16; ++v) {
    _mm_store_si128(bytes + v, _mm_setzero_si128());
    _mm_store_si128(bytes + kKeyStep / 16 + v, _mm_setzero_si128());
  }
}

// Scores of query i to weights, with the step's maximum and sum. kFull: all 128 keys are visible.
template <DType kType, bool kFull>
void softmax(int i, const int64_t v_scale_offset, State& state) {
  const int num_keys = kFull ? kKeyStep : state.num_keys[i];
  const int vectors = kFull ? kKeyStep / 16 : (num_keys + 15) / 16;
  __m512 p[kKeyStep / 16];
  __m512 best = _mm512_set1_ps(-__builtin_inff());
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) {
    p[v] = _mm512_load_ps(state.p[i] + 16 * v);
    if (!kFull) {
      p[v] = _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), first_lanes(num_keys - 16 * v),
                                p[v]);
    }
    best = _mm512_max_ps(p[v], best);
  }
  state.step_largest[i] = largest_lane(best);
  const __m512 shift = _mm512_set1_ps(state.step_largest[i]);
  __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) {
    p[v] = exp2_weight(_mm512_sub_ps(p[v], shift));
    if (!kFull) p[v] = _mm512_maskz_mov_ps(first_lanes(num_keys - 16 * v), p[v]);
    if constexpr (kType == DType::bf16) {
      const auto bits = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(p[v]));
      p[v] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
      _mm256_store_si256(reinterpret_cast<__m256i*>(state.p[i]) + v, bits);
    } else if constexpr (kType != DType::int8) {
      _mm512_store_ps(state.p[i] + 16 * v, p[v]);
    }
    sum = _mm512_add_ps(sum, p[v]);
  }
  state.step_sum[i] = tree_sum(sum);
  if constexpr (kType == DType::int8) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      const std::byte* scales = state.blocks[v / 2] + v_scale_offset;
      const __m512 scale =
          _mm512_maskz_loadu_ps(first_lanes(num_keys - 16 * v), scales + v % 2 * 64);
      p[v] = _mm512_mul_ps(p[v], scale);
    }
    round_weights(p, vectors, i, state);
  }
}

// 8 queries of one group, from vectors of runs to [run][kGroup].
template <DType kType>
void prepare_query(const AttentionTile& tile, int i, float factor, State& state) {
  const int width = stored_dim(tile.head_dim);
  const int num_runs = width / run_of(kType);
  alignas(64) float x[kMaxHeadDim];
  __m512i largest = _mm512_setzero_si512();
  for (int d = 0; d < width; d += 16) {
    const __m512 scaled =
        _mm512_mul_ps(_mm512_maskz_loadu_ps(first_lanes(tile.head_dim - d), tile.q[i] + d),
                      _mm512_set1_ps(factor));
    _mm512_store_ps(x + d, scaled);
    largest = _mm512_max_epu32(
        largest, _mm512_and_si512(_mm512_castps_si512(scaled), _mm512_set1_epi32(0x7fffffff)));
  }
  uint32_t* to = state.q + (i / kGroup * num_runs * kGroup) + i % kGroup;
  alignas(64) uint32_t runs[kMaxHeadDim];
  if constexpr (kType == DType::bf16) {
    for (int d = 0; d < width; d += 16)
      _mm256_store_si256(reinterpret_cast<__m256i*>(runs + d / 2),
                         reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_load_ps(x + d))));
  } else if constexpr (kType == DType::int8) {
    const auto bits = static_cast<uint32_t>(_mm512_reduce_max_epu32(largest));
    const float magnitude =
        _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(bits))));
    const bool usable = magnitude >= 1e-30f && bits < 0x7f800000;
    const float inverse = usable ? 127.0f / magnitude : 0.0f;
    state.q_scale[i] = magnitude < 1e-30f ? 0.0f : magnitude / 127.0f;
    __m512i sum = _mm512_setzero_si512();
    for (int d = 0; d < width; d += 16) {
      const __m512i whole =
          _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(x + d), _mm512_set1_ps(inverse)));
      const __m512i kept = usable ? whole : _mm512_setzero_si512();
      sum = _mm512_add_epi32(sum, kept);
      _mm_store_si128(reinterpret_cast<__m128i*>(runs + d / 4), _mm512_cvtepi32_epi8(kept));
    }
    state.q_bias[i] = -128 * _mm512_reduce_add_epi32(sum);
  } else {
    for (int d = 0; d < width; d += 16)
      _mm512_store_ps(reinterpret_cast<float*>(runs) + d, _mm512_load_ps(x + d));
  }
  for (int r = 0; r < num_runs; ++r) to[r * kGroup] = runs[r];
}

template <DType kType>
void start(const AttentionTile& tile, State& state) {
  const float factor = tile.scale * 1.44269504088896341f;
  for (int i = 0; i < tile.num_queries; ++i) prepare_query<kType>(tile, i, factor, state);
  const int64_t floats = int64_t{tile.num_queries} * stored_dim(tile.head_dim);
  for (int64_t d = 0; d < floats; d += 16) _mm512_store_ps(state.out + d, _mm512_setzero_ps());
  for (int i = 0; i < kMaxTileQueries; i += 16) {
    _mm512_store_ps(state.largest + i, _mm512_set1_ps(-__builtin_inff()));
    _mm512_store_ps(state.step_largest + i, _mm512_set1_ps(-__builtin_inff()));
    _mm512_store_ps(state.sum + i, _mm512_setzero_ps());
    _mm512_store_ps(state.step_sum + i, _mm512_setzero_ps());
  }
}

// Factors of what came before and of the step, for all queries; the running maximum and sum.
void merge_sums(State& state) {
  for (int i = 0; i < kMaxTileQueries; i += 16) {
    const __m512 old = _mm512_load_ps(state.largest + i);
    const __m512 mine = _mm512_load_ps(state.step_largest + i);
    const __m512 largest = _mm512_max_ps(old, mine);
    const __m512 before = exp2_weight(_mm512_sub_ps(old, largest));
    const __m512 added = exp2_weight(_mm512_sub_ps(mine, largest));
    const __m512 sum = _mm512_mul_ps(_mm512_load_ps(state.sum + i), before);
    _mm512_store_ps(state.largest + i, largest);
    _mm512_store_ps(state.before + i, before);
    _mm512_store_ps(state.added + i, added);
    _mm512_store_ps(state.sum + i, _mm512_fmadd_ps(_mm512_load_ps(state.step_sum + i), added, sum));
  }
}

inline void merge_row(const float* step, float before, float added, int width, float* out) {
  const __m512 a = _mm512_set1_ps(before);
  const __m512 b = _mm512_set1_ps(added);
  for (int d = 0; d < width; d += 16) {
    const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(out + d), a);
    _mm512_storeu_ps(out + d, _mm512_fmadd_ps(_mm512_loadu_ps(step + d), b, scaled));
  }
}

void write_row(const float* total, float sum, int head_dim, float* out) {
  const __m512 inverse = _mm512_set1_ps(1.0f / sum);
  for (int d = 0; d < head_dim; d += 16)
    _mm512_mask_storeu_ps(out + d, first_lanes(head_dim - d),
                          _mm512_mul_ps(_mm512_loadu_ps(total + d), inverse));
}

inline float exp2_one(float x) { return _mm512_cvtss_f32(exp2_weight(_mm512_set1_ps(x))); }

}  // namespace
}  // namespace chainpump::kernels::cpu::avx512
