// Attention for a tile of up to 8 queries that share a KV head, AVX-512.
//
// Lanes of the scores are the 32 positions of a block, lanes of the values the head's dimensions,
// so neither product has a horizontal sum; each K and V vector loaded serves all queries of the
// tile. Bound: long decode reads K and V once per KV head (memory); prefill is 2 * 32 * head_dim
// fma per query and block plus 32 exp (fma peak). A query's operations and their order do not
// depend on the others in the tile: positions it may not see are left out, not multiplied by zero.
// Reached (Zen4, one thread, other work on the machine): 24 GB/s of f32 KV at 8K context; prefill
// of 512 tokens 65 Gop/s, 0.56 of the fma peak.
#include <immintrin.h>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/vector_math_avx512.h"

namespace chainpump::kernels::cpu::avx512 {
namespace {

constexpr int kBlock = 32;  // kKvBlockTokens
constexpr int kQueries = kMaxTileQueries;

struct State {
  alignas(64) float scaled_q[kMaxHeadDim][kQueries];
  alignas(64) float p[kQueries][kBlock];  // scores, then weights
  alignas(64) float out[kQueries][kMaxHeadDim];
  alignas(64) float largest[16];
  alignas(64) float sum[16];
  alignas(64) float correction[16];
  alignas(64) float block_largest[16];
  alignas(64) float block_sum[16];
};

template <DType kType>
inline __m512 load16(const std::byte* base, int64_t at, __mmask16 mask) {
  if constexpr (kType == DType::f32) {
    return _mm512_maskz_loadu_ps(mask, reinterpret_cast<const float*>(base) + at);
  } else {
    const __m256i bits =
        _mm256_maskz_loadu_epi16(mask, reinterpret_cast<const uint16_t*>(base) + at);
    if constexpr (kType == DType::f16) return _mm512_cvtph_ps(bits);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
}

// Scores of queries [first, first + kCount) with all 32 positions.
template <DType kType, int kCount>
void scores(const AttentionTile& tile, const std::byte* block, int first, State& state) {
  __m512 acc[kCount][2];
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) acc[i][0] = acc[i][1] = _mm512_setzero_ps();
  for (int d = 0; d < tile.head_dim; ++d) {
    const __m512 k0 = load16<kType>(block, d * kBlock, 0xffff);
    const __m512 k1 = load16<kType>(block, d * kBlock + 16, 0xffff);
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      const __m512 q = _mm512_set1_ps(state.scaled_q[d][first + i]);
      acc[i][0] = _mm512_fmadd_ps(q, k0, acc[i][0]);
      acc[i][1] = _mm512_fmadd_ps(q, k1, acc[i][1]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) {
    _mm512_store_ps(state.p[first + i], acc[i][0]);
    _mm512_store_ps(state.p[first + i] + 16, acc[i][1]);
  }
}

// Adds p[j] * V[j] of positions [begin, end) to the outputs; at first scales them by the
// correction.
template <DType kType, int kCount>
void values(const AttentionTile& tile, const std::byte* v, int first, int begin, int end,
            bool correct, State& state) {
  for (int d0 = 0; d0 < tile.head_dim; d0 += 64) {
    __mmask16 mask[4];
    __m512 acc[kCount][4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const int left = tile.head_dim - d0 - 16 * c;
      mask[c] = static_cast<__mmask16>(left >= 16 ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) {
      const __m512 factor = _mm512_set1_ps(state.correction[first + i]);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        acc[i][c] = _mm512_maskz_load_ps(mask[c], state.out[first + i] + d0 + 16 * c);
        if (correct) acc[i][c] = _mm512_mul_ps(acc[i][c], factor);
      }
    }
    for (int j = begin; j < end; ++j) {
      __m512 row[4];
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c)
        row[c] = load16<kType>(v, int64_t{j} * tile.head_dim + d0 + 16 * c, mask[c]);
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) {
        const __m512 weight = _mm512_set1_ps(state.p[first + i][j]);
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) acc[i][c] = _mm512_fmadd_ps(weight, row[c], acc[i][c]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i)
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c)
        _mm512_mask_store_ps(state.out[first + i] + d0 + 16 * c, mask[c], acc[i][c]);
  }
}

template <DType kType>
void scores_of(const AttentionTile& tile, const std::byte* block, int first, State& state) {
  using Scores = void (*)(const AttentionTile&, const std::byte*, int, State&);
  static constexpr Scores kByCount[] = {nullptr,          scores<kType, 1>, scores<kType, 2>,
                                        scores<kType, 3>, scores<kType, 4>, scores<kType, 5>,
                                        scores<kType, 6>, scores<kType, 7>, scores<kType, 8>};
  kByCount[tile.num_queries - first](tile, block, first, state);
}

template <DType kType>
void values_of(const AttentionTile& tile, const std::byte* v, int first, const int* num_keys,
               State& state) {
  using Values = void (*)(const AttentionTile&, const std::byte*, int, int, int, bool, State&);
  static constexpr Values kByCount[] = {nullptr, values<kType, 1>, values<kType, 2>,
                                        values<kType, 3>, values<kType, 4>};
  while (first < tile.num_queries) {
    const int count = tile.num_queries - first < 4 ? tile.num_queries - first : 4;
    const int common = num_keys[first];  // positions ascend, so the first sees the fewest
    kByCount[count](tile, v, first, 0, common, true, state);
    for (int i = 1; i < count; ++i)
      if (num_keys[first + i] > common)
        values<kType, 1>(tile, v, first + i, common, num_keys[first + i], false, state);
    first += count;
  }
}

inline __mmask16 visible(int num_keys) {
  return static_cast<__mmask16>(num_keys >= 16 ? 0xffff : num_keys <= 0 ? 0 : (1 << num_keys) - 1);
}

// Scores to weights, with the running maximum and sum of queries [first, num_queries).
void softmax(const AttentionTile& tile, int first, const int* num_keys, State& state) {
  const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
  for (int i = first; i < tile.num_queries; ++i) {
    const __m512 s0 = _mm512_mask_mov_ps(lowest, visible(num_keys[i]), _mm512_load_ps(state.p[i]));
    const __m512 s1 =
        _mm512_mask_mov_ps(lowest, visible(num_keys[i] - 16), _mm512_load_ps(state.p[i] + 16));
    state.block_largest[i] = largest_lane(_mm512_max_ps(s0, s1));
  }
  const __m512 old = _mm512_load_ps(state.largest);
  const __m512 largest = _mm512_max_ps(old, _mm512_load_ps(state.block_largest));
  const __m512 correction = exp_vector(_mm512_sub_ps(old, largest));
  _mm512_store_ps(state.largest, largest);
  _mm512_store_ps(state.correction, correction);
  for (int i = first; i < tile.num_queries; ++i) {
    const __m512 shift = _mm512_set1_ps(state.largest[i]);
    const __m512 p0 = _mm512_maskz_mov_ps(
        visible(num_keys[i]), exp_vector(_mm512_sub_ps(_mm512_load_ps(state.p[i]), shift)));
    const __m512 p1 =
        _mm512_maskz_mov_ps(visible(num_keys[i] - 16),
                            exp_vector(_mm512_sub_ps(_mm512_load_ps(state.p[i] + 16), shift)));
    _mm512_store_ps(state.p[i], p0);
    _mm512_store_ps(state.p[i] + 16, p1);
    state.block_sum[i] = tree_sum(_mm512_add_ps(p0, p1));
  }
  const __m512 sum = _mm512_load_ps(state.sum);
  const auto active = static_cast<__mmask16>(0xffff << first);
  _mm512_store_ps(state.sum,
                  _mm512_mask_fmadd_ps(sum, active, correction, _mm512_load_ps(state.block_sum)));
}

void start(const AttentionTile& tile, State& state) {
  const __m512 zero = _mm512_setzero_ps();
  for (int d = 0; d < tile.head_dim; ++d)
    for (int i = 0; i < tile.num_queries; ++i) state.scaled_q[d][i] = tile.q[i][d] * tile.scale;
  for (int i = 0; i < tile.num_queries; ++i)
    for (int d = 0; d < tile.head_dim; d += 16) _mm512_store_ps(state.out[i] + d, zero);
  _mm512_store_ps(state.largest, _mm512_set1_ps(-__builtin_inff()));
  _mm512_store_ps(state.block_largest, zero);
  _mm512_store_ps(state.block_sum, zero);
  _mm512_store_ps(state.sum, zero);
}

template <DType kType>
void run_tile(const AttentionTile& tile) {
  State state;
  start(tile, state);
  const int64_t v_offset = int64_t{tile.head_dim} * kBlock * (kType == DType::f32 ? 4 : 2);
  const int last_position = tile.position[tile.num_queries - 1];
  int first = 0;
  int num_keys[kQueries];
  for (int begin = 0; begin <= last_position; begin += kBlock) {
    while (tile.position[first] < begin) ++first;  // done; its sum and output stay as they are
    for (int i = first; i < tile.num_queries; ++i) {
      const int keys = tile.position[i] + 1 - begin;
      num_keys[i] = keys < kBlock ? keys : kBlock;
    }
    const std::byte* block = tile.head_data + tile.block_table[begin / kBlock] * tile.block_stride;
    scores_of<kType>(tile, block, first, state);
    softmax(tile, first, num_keys, state);
    values_of<kType>(tile, block + v_offset, first, num_keys, state);
  }
  for (int i = 0; i < tile.num_queries; ++i) {
    const __m512 inverse = _mm512_set1_ps(1.0f / state.sum[i]);
    for (int d = 0; d < tile.head_dim; d += 16) {
      const __mmask16 mask = visible(tile.head_dim - d);
      _mm512_mask_storeu_ps(tile.out[i] + d, mask,
                            _mm512_mul_ps(_mm512_load_ps(state.out[i] + d), inverse));
    }
  }
}

}  // namespace

void attention_tile(const AttentionTile& tile) {
  if (tile.type == DType::f32)
    run_tile<DType::f32>(tile);
  else if (tile.type == DType::f16)
    run_tile<DType::f16>(tile);
  else
    run_tile<DType::bf16>(tile);
}

}  // namespace chainpump::kernels::cpu::avx512
