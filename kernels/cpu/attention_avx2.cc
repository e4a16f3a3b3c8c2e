// Attention for a tile of queries, AVX2: one query after the other over key blocks that stay in L1,
// lanes as in attention_avx512.cc (positions for the scores, dimensions for the values), the same
// operations in the same order. Bound: K and V from memory in long decode, else half the fma peak
// (four chains in the scores).
#include <immintrin.h>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vector_math_avx2.h"

namespace chainpump::kernels::cpu::avx2 {
namespace {

constexpr int kBlock = 32;  // kKvBlockTokens

struct State {
  alignas(32) float scaled_q[kMaxHeadDim];
  alignas(32) float p[kBlock];
  alignas(32) float out[kMaxHeadDim];
  float largest;
  float sum;
  float correction;
};

template <DType kType>
inline __m256 load8(const std::byte* base, int64_t at) {
  if constexpr (kType == DType::f32) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(base) + at);
  } else {
    const __m128i bits = _mm_loadu_si128(
        reinterpret_cast<const __m128i*>(reinterpret_cast<const uint16_t*>(base) + at));
    if constexpr (kType == DType::f16) return _mm256_cvtph_ps(bits);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
}

template <DType kType>
inline __m128 load1(const std::byte* base, int64_t at) {
  if constexpr (kType == DType::f32) {
    return _mm_load_ss(reinterpret_cast<const float*>(base) + at);
  } else {
    const int bits = reinterpret_cast<const uint16_t*>(base)[at];
    if constexpr (kType == DType::f16) return _mm_cvtph_ps(_mm_cvtsi32_si128(bits));
    return _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtsi32_si128(bits), 16));
  }
}

template <DType kType>
void scores(const AttentionTile& tile, const std::byte* block, State& state) {
  __m256 acc[4];
  for (__m256& one : acc) one = _mm256_setzero_ps();
  for (int d = 0; d < tile.head_dim; ++d) {
    const __m256 q = _mm256_broadcast_ss(&state.scaled_q[d]);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c)
      acc[c] = _mm256_fmadd_ps(q, load8<kType>(block, d * kBlock + 8 * c), acc[c]);
  }
  for (int c = 0; c < 4; ++c) _mm256_store_ps(state.p + 8 * c, acc[c]);
}

void softmax(int num_keys, State& state) {
  const __m256 lowest = _mm256_set1_ps(-__builtin_inff());
  __m256 mask[4];
  __m256 s[4];
  __m256 best = lowest;
  for (int c = 0; c < 4; ++c) {
    mask[c] = _mm256_castsi256_ps(first_lanes(num_keys - 8 * c));
    s[c] = _mm256_load_ps(state.p + 8 * c);
    best = _mm256_max_ps(_mm256_blendv_ps(lowest, s[c], mask[c]), best);
  }
  const float block_largest = largest_lane(best);
  const float largest = block_largest > state.largest ? block_largest : state.largest;
  state.correction = exp_one(state.largest - largest);
  state.largest = largest;
  const __m256 shift = _mm256_set1_ps(largest);
  for (int c = 0; c < 4; ++c) {
    s[c] = _mm256_and_ps(exp_vector(_mm256_sub_ps(s[c], shift)), mask[c]);
    _mm256_store_ps(state.p + 8 * c, s[c]);
  }
  // Positions j and j + 16 first, then the tree.
  const float sum = tree_sum(_mm256_add_ps(s[0], s[2]), _mm256_add_ps(s[1], s[3]));
  state.sum = _mm_cvtss_f32(
      _mm_fmadd_ss(_mm_set_ss(state.sum), _mm_set_ss(state.correction), _mm_set_ss(sum)));
}

template <DType kType, int kVectors>
void values(const std::byte* v, int head_dim, int d, int num_keys, State& state) {
  const __m256 factor = _mm256_set1_ps(state.correction);
  __m256 acc[kVectors];
  for (int c = 0; c < kVectors; ++c)
    acc[c] = _mm256_mul_ps(_mm256_load_ps(state.out + d + 8 * c), factor);
  for (int j = 0; j < num_keys; ++j) {
    const __m256 weight = _mm256_broadcast_ss(&state.p[j]);
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c)
      acc[c] = _mm256_fmadd_ps(weight, load8<kType>(v, int64_t{j} * head_dim + d + 8 * c), acc[c]);
  }
  for (int c = 0; c < kVectors; ++c) _mm256_store_ps(state.out + d + 8 * c, acc[c]);
}

template <DType kType>
void value_of_one(const std::byte* v, int head_dim, int d, int num_keys, State& state) {
  __m128 acc = _mm_mul_ss(_mm_load_ss(&state.out[d]), _mm_set_ss(state.correction));
  for (int j = 0; j < num_keys; ++j)
    acc = _mm_fmadd_ss(_mm_load_ss(&state.p[j]), load1<kType>(v, int64_t{j} * head_dim + d), acc);
  _mm_store_ss(&state.out[d], acc);
}

template <DType kType>
void run_query(const AttentionTile& tile, int i) {
  State state;
  for (int d = 0; d < tile.head_dim; ++d) {
    state.scaled_q[d] = tile.q[i][d] * tile.scale;
    state.out[d] = 0;
  }
  state.largest = -__builtin_inff();
  state.sum = 0;
  const int64_t v_offset = int64_t{tile.head_dim} * kBlock * (kType == DType::f32 ? 4 : 2);
  for (int begin = 0; begin <= tile.position[i]; begin += kBlock) {
    const int keys = tile.position[i] + 1 - begin;
    const int num_keys = keys < kBlock ? keys : kBlock;
    const std::byte* block = tile.head_data + tile.block_table[begin / kBlock] * tile.block_stride;
    scores<kType>(tile, block, state);
    softmax(num_keys, state);
    int d = 0;
    for (; d + 64 <= tile.head_dim; d += 64)
      values<kType, 8>(block + v_offset, tile.head_dim, d, num_keys, state);
    for (; d + 8 <= tile.head_dim; d += 8)
      values<kType, 1>(block + v_offset, tile.head_dim, d, num_keys, state);
    for (; d < tile.head_dim; ++d)
      value_of_one<kType>(block + v_offset, tile.head_dim, d, num_keys, state);
  }
  const float inverse = 1.0f / state.sum;
  for (int d = 0; d < tile.head_dim; ++d) tile.out[i][d] = state.out[d] * inverse;
}

}  // namespace

void attention_tile(const AttentionTile& tile) {
  for (int i = 0; i < tile.num_queries; ++i) {
    if (tile.type == DType::f32)
      run_query<DType::f32>(tile, i);
    else if (tile.type == DType::f16)
      run_query<DType::f16>(tile, i);
    else
      run_query<DType::bf16>(tile, i);
  }
}

}  // namespace chainpump::kernels::cpu::avx2
