// Attention for a tile of queries, AVX2; arithmetic and layout as attention_tile.h states them.
// Lanes as in attention_avx512.cc (positions for the scores, dimensions for the values); three
// queries at a time meet four vectors of a block of keys that stays in L1, twelve sums side by
// side. Bound: K and V from memory in long decode, else the fma peak (bf16 has no product of its
// own here and takes the same; int8 takes a vpmaddwd per two products).
// Reached (Zen4, heads 9/3 of 64, 256 tokens at 4096 keys, one thread): f32 68 Gop/s and f16 70 of
// 118 (the softmax takes most of the rest), bf16 48, int8 83 of 143. Decode at 8192 keys from cold
// memory, each step fetched into L2 during the one before: f32 15 to 17 GB/s, f16 12 to 15, bf16 10
// to 14, int8 8 of a sweep's 30.
#include <immintrin.h>

#include "kernels/cpu/attention_products_avx2.h"
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vector_math_avx2.h"

namespace chainpump::kernels::cpu::avx2 {
namespace {

constexpr int kBlock = 32;  // kKvBlockTokens
constexpr int kVectors = kKeyStep / 8;
constexpr float kWeightLevels = 32767.0f;

inline int stored_dim(int head_dim) { return (head_dim + 15) / 16 * 16; }
inline int smaller(int a, int b) { return a < b ? a : b; }

struct Query {
  alignas(32) uint32_t q[kMaxHeadDim];  // [run][part]
  alignas(32) float p[kKeyStep];        // scores, then weights as [run][part]
  alignas(32) float step_out[kMaxHeadDim];
  alignas(32) float out[kMaxHeadDim];
  float largest;
  float sum;
  float step_largest;
  float step_sum;
  float q_scale;
  int32_t q_bias;
  float weight_scale;
  int num_keys;  // visible in this step
};

constexpr int64_t kQueryFloats = sizeof(Query) / sizeof(float);

template <DType kType>
void scores(const std::byte* block, int b, int head_dim, int count, int64_t ahead, Query* queries) {
  const int64_t v_offset = int64_t{stored_dim(head_dim)} * kBlock * element_bytes(kType);
  const int num_runs = (head_dim + run_of(kType) - 1) / run_of(kType);
  for (int i = 0; i < count; ++i)
    for (int c = 0; c < 4; ++c)
      _mm256_store_ps(
          queries[i].p + b * kBlock + 8 * c,
          _mm256_castsi256_ps(_mm256_set1_epi32(kType == DType::int8 ? queries[i].q_bias : 0)));
  const auto* x = reinterpret_cast<const float*>(queries->q);
  multiply<kType, true>(count, block, 4 * vector_bytes(kType), x, kQueryFloats, num_runs, 4, ahead,
                        queries->p + b * kBlock);
  if (kType != DType::int8) return;
  const auto* k_scale = reinterpret_cast<const float*>(block + 2 * v_offset);
  for (int i = 0; i < count; ++i) {
    for (int c = 0; c < 4; ++c) {
      float* s = queries[i].p + b * kBlock + 8 * c;
      const __m256 whole = _mm256_cvtepi32_ps(_mm256_castps_si256(_mm256_load_ps(s)));
      _mm256_store_ps(s, _mm256_mul_ps(_mm256_mul_ps(whole, _mm256_loadu_ps(k_scale + 8 * c)),
                                       _mm256_set1_ps(queries[i].q_scale)));
    }
  }
}

template <DType kType>
void values(const std::byte* block, int b, int head_dim, int count, int64_t ahead, Query* queries) {
  constexpr int kRun = run_of(kType);
  const int width = stored_dim(head_dim);
  const std::byte* v = block + int64_t{width} * kBlock * element_bytes(kType);
  const int64_t row = int64_t{width} / 8 * vector_bytes(kType);
  const auto visible = [&](int i) {
    const int keys = queries[i].num_keys - b * kBlock;
    return keys <= 0 ? 0 : smaller(keys, kBlock);
  };
  const auto add = [&](int i, int how_many, int first_run, int last_run) {
    if (first_run >= last_run) return;
    const float* p = queries[i].p + (b * kBlock / kRun + first_run) * parts_of(kType);
    for (int d = 0; d < width; d += 32)
      multiply<kType, false>(how_many, v + first_run * row + d / 8 * vector_bytes(kType), row, p,
                             kQueryFloats, last_run - first_run, smaller(4, (width - d) / 8), ahead,
                             queries[i].step_out + d);
  };
  // Weights of positions out of sight are zero, which exact integers do not mind; others are left
  // out. A query sees at least what those before it do.
  if (kType == DType::int8) return add(0, count, 0, (visible(count - 1) + 3) / 4);
  for (int i = 0; i < count; ++i)
    add(i, count - i, i == 0 ? 0 : visible(i - 1) / kRun, visible(i) / kRun);
  if (kType != DType::bf16) return;
  for (int i = 0; i < count; ++i) {
    if (visible(i) % 2 == 0) continue;
    const int run = visible(i) / 2;
    const __m256 weight = _mm256_broadcast_ss(queries[i].p + b * kBlock + 2 * run + 1);
    for (int d = 0; d < width; d += 8) {
      __m256 parts[2];
      load_parts<DType::bf16, false>(v + run * row + d * 4, parts);
      _mm256_store_ps(queries[i].step_out + d,
                      _mm256_fmadd_ps(weight, parts[1], _mm256_load_ps(queries[i].step_out + d)));
    }
  }
}

// x of a pair of bf16 as parts: the odd one first.
inline __m256 swap_pairs(__m256 x) { return _mm256_permute_ps(x, 0xb1); }

// Round to nearest even, as base/half.h, kept as f32.
inline __m256 round_bf16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256 kept = _mm256_castsi256_ps(_mm256_and_si256(rounded, _mm256_set1_epi32(-65536)));
  return _mm256_blendv_ps(kept, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

// 8 integers of at most 16 bits, two runs of four, to their parts: (0, 2), (1, 3) of each.
inline __m128i int8_parts(__m256i whole) {
  const __m128i words =
      _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  return _mm_shuffle_epi8(words,
                          _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
}

// Magnitudes as bits, which are not negative as integers; NaN is larger than everything.
inline __m256i magnitude_bits(__m256 x) {
  return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}

struct Magnitude {
  float value;
  bool usable;  // neither too small to divide by nor infinite
};

inline Magnitude largest_magnitude(__m256i lanes) {
  alignas(32) int32_t each[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(each), lanes);
  int32_t bits = 0;
  for (const int32_t lane : each) bits = lane > bits ? lane : bits;
  const float value = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(bits)));
  return {value, value >= 1e-30f && bits < 0x7f800000};
}

// Weights of int8: p * v_scale in 15 bits of the largest.
void round_weights(__m256* p, int vectors, Query& query) {
  __m256i best = _mm256_setzero_si256();
  for (int v = 0; v < vectors; ++v) best = _mm256_max_epi32(best, magnitude_bits(p[v]));
  const Magnitude largest = largest_magnitude(best);
  const __m256 inverse = _mm256_set1_ps(largest.usable ? kWeightLevels / largest.value : 0.0f);
  query.weight_scale = largest.value / kWeightLevels;
  auto* to = reinterpret_cast<__m128i*>(query.p);
  for (int v = 0; v < kVectors; ++v) {
    const __m256 level = v < vectors ? _mm256_mul_ps(p[v], inverse) : _mm256_setzero_ps();
    _mm_store_si128(
        to + v, int8_parts(largest.usable ? _mm256_cvtps_epi32(level) : _mm256_setzero_si256()));
  }
}

template <DType kType>
void softmax(const std::byte* const* blocks, int64_t v_scale_offset, Query& query) {
  const int vectors = (query.num_keys + 7) / 8;
  __m256 p[kVectors];
  __m256 mask[kVectors];
  __m256 best = _mm256_set1_ps(-__builtin_inff());
  for (int v = 0; v < vectors; ++v) {
    mask[v] = _mm256_castsi256_ps(first_lanes(query.num_keys - 8 * v));
    p[v] = _mm256_blendv_ps(_mm256_set1_ps(-__builtin_inff()), _mm256_load_ps(query.p + 8 * v),
                            mask[v]);
    best = _mm256_max_ps(p[v], best);
  }
  query.step_largest = largest_lane(best);
  const __m256 shift = _mm256_set1_ps(query.step_largest);
  __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  for (int v = 0; v < vectors; ++v) {
    p[v] = _mm256_and_ps(exp2_weight(_mm256_sub_ps(p[v], shift)), mask[v]);
    if (kType == DType::bf16) p[v] = round_bf16(p[v]);
    if (kType != DType::int8)
      _mm256_store_ps(query.p + 8 * v, kType == DType::bf16 ? swap_pairs(p[v]) : p[v]);
    sum[v % 2] = _mm256_add_ps(sum[v % 2], p[v]);
  }
  query.step_sum = tree_sum(sum[0], sum[1]);
  if (kType != DType::int8) return;
  for (int v = 0; v < vectors; ++v) {
    const auto* scales = reinterpret_cast<const float*>(blocks[v / 4] + v_scale_offset) + v % 4 * 8;
    p[v] = _mm256_and_ps(_mm256_mul_ps(p[v], _mm256_loadu_ps(scales)), mask[v]);
  }
  round_weights(p, vectors, query);
}

template <DType kType>
void start(const AttentionTile& tile, int i, Query& query) {
  const int width = stored_dim(tile.head_dim);
  const float factor = tile.scale * 1.44269504088896341f;
  alignas(32) float x[kMaxHeadDim];
  __m256i largest = _mm256_setzero_si256();
  for (int d = 0; d < width; d += 8) {
    const __m256 part = _mm256_maskload_ps(tile.q[i] + d, first_lanes(tile.head_dim - d));
    const __m256 scaled = _mm256_mul_ps(part, _mm256_set1_ps(factor));
    _mm256_store_ps(x + d, scaled);
    largest = _mm256_max_epi32(
        largest, _mm256_and_si256(_mm256_castps_si256(scaled), _mm256_set1_epi32(0x7fffffff)));
    _mm256_store_ps(query.out + d, _mm256_setzero_ps());
  }
  query.largest = -__builtin_inff();
  query.sum = 0;
  auto* to = reinterpret_cast<float*>(query.q);
  if constexpr (kType == DType::int8) {
    const Magnitude magnitude = largest_magnitude(largest);
    const __m256 inverse = _mm256_set1_ps(magnitude.usable ? 127.0f / magnitude.value : 0.0f);
    query.q_scale = magnitude.value < 1e-30f ? 0.0f : magnitude.value / 127.0f;
    alignas(32) int32_t lanes[8];
    query.q_bias = 0;
    for (int d = 0; d < width; d += 8) {
      const __m256i rounded = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_load_ps(x + d), inverse));
      const __m256i whole = magnitude.usable ? rounded : _mm256_setzero_si256();
      _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), whole);
      for (const int32_t lane : lanes) query.q_bias -= 128 * lane;
      _mm_store_si128(reinterpret_cast<__m128i*>(to + d / 2), int8_parts(whole));
    }
  } else {
    for (int d = 0; d < width; d += 8) {
      const __m256 part = _mm256_load_ps(x + d);
      _mm256_store_ps(to + d, kType == DType::bf16 ? swap_pairs(round_bf16(part)) : part);
    }
  }
}

// A finished step, o, m and l, into the totals.
void merge(const float* step, float step_largest, float step_sum, int width, Query& query) {
  const float largest = query.largest > step_largest ? query.largest : step_largest;
  const float before = _mm256_cvtss_f32(exp2_weight(_mm256_set1_ps(query.largest - largest)));
  const float added = _mm256_cvtss_f32(exp2_weight(_mm256_set1_ps(step_largest - largest)));
  query.largest = largest;
  query.sum = __builtin_fmaf(step_sum, added, query.sum * before);
  for (int d = 0; d < width; d += 8) {
    const __m256 scaled = _mm256_mul_ps(_mm256_load_ps(query.out + d), _mm256_set1_ps(before));
    _mm256_store_ps(query.out + d,
                    _mm256_fmadd_ps(_mm256_loadu_ps(step + d), _mm256_set1_ps(added), scaled));
  }
}

void write_row(const Query& query, int head_dim, float* out) {
  const __m256 inverse = _mm256_set1_ps(1.0f / query.sum);
  for (int d = 0; d < head_dim; d += 8)
    _mm256_maskstore_ps(out + d, first_lanes(head_dim - d),
                        _mm256_mul_ps(_mm256_load_ps(query.out + d), inverse));
}

template <DType kType>
void finish_step(const AttentionTile& tile, int step, int i, Query& query) {
  const int width = stored_dim(tile.head_dim);
  if (kType == DType::int8) {
    for (int d = 0; d < width; d += 8) {
      const __m256 sum =
          _mm256_cvtepi32_ps(_mm256_castps_si256(_mm256_load_ps(query.step_out + d)));
      _mm256_store_ps(query.step_out + d, _mm256_mul_ps(sum, _mm256_set1_ps(query.weight_scale)));
    }
  }
  if (tile.partials == nullptr)
    return merge(query.step_out, query.step_largest, query.step_sum, width, query);
  float* to = tile.partials + (int64_t{step} * tile.num_queries + i) * tile.partial_stride;
  for (int d = 0; d < width; d += 8) _mm256_storeu_ps(to + d, _mm256_load_ps(query.step_out + d));
  to[tile.partial_stride - 2] = query.step_largest;
  to[tile.partial_stride - 1] = query.step_sum;
}

// One step for queries [first, first + count) of the tile.
template <DType kType>
void run_step(const AttentionTile& tile, int step, int first, int count, Query* queries) {
  const int width = stored_dim(tile.head_dim);
  const int64_t v_scale_offset = int64_t{2} * width * kBlock * element_bytes(kType) + kBlock * 4;
  const std::byte* blocks[kKeyStep / kBlock];
  for (int i = 0; i < count; ++i) {
    queries[i].num_keys = smaller(tile.position[first + i] + 1 - step * kKeyStep, kKeyStep);
    for (int d = 0; d < width; d += 8)
      _mm256_store_ps(queries[i].step_out + d, _mm256_setzero_ps());
  }
  const int max_keys = queries[count - 1].num_keys;
  const auto block = [&](int of_step, int b) {
    return tile.head_data + tile.block_table[of_step * (kKeyStep / kBlock) + b] * tile.block_stride;
  };
  // The first queries of a tile have the next step fetched; the others find it in the caches.
  int64_t ahead[kKeyStep / kBlock] = {};
  const int next_keys = tile.position[tile.num_queries - 1] + 1 - (step + 1) * kKeyStep;
  for (int b = 0; b * kBlock < max_keys; ++b) {
    blocks[b] = block(step, b);
    if (first == 0 && step + 1 < tile.step_end && b * kBlock < next_keys)
      ahead[b] = block(step + 1, b) - blocks[b];
    scores<kType>(blocks[b], b, tile.head_dim, count, ahead[b], queries);
  }
  for (int i = 0; i < count; ++i)
    if (queries[i].num_keys > 0) softmax<kType>(blocks, v_scale_offset, queries[i]);
  for (int b = 0; b * kBlock < max_keys; ++b)
    values<kType>(blocks[b], b, tile.head_dim, count, ahead[b], queries);
  for (int i = 0; i < count; ++i)
    if (queries[i].num_keys > 0) finish_step<kType>(tile, step, first + i, queries[i]);
}

template <DType kType>
void run_tile(const AttentionTile& tile) {
  Query queries[kMaxTileQueries];
  for (int i = 0; i < tile.num_queries; ++i) start<kType>(tile, i, queries[i]);
  for (int step = tile.step_begin; step < tile.step_end; ++step) {
    for (int i = 0, count = 0; i < tile.num_queries; i += count) {
      const int left = tile.num_queries - i;
      count = left == 4 ? 2 : smaller(kGroup, left);  // one alone would leave sums waiting
      if (tile.position[i + count - 1] >= step * kKeyStep)
        run_step<kType>(tile, step, i, count, queries + i);
    }
  }
  if (tile.partials != nullptr) return;
  for (int i = 0; i < tile.num_queries; ++i) write_row(queries[i], tile.head_dim, tile.out[i]);
}

}  // namespace

void attention_tile(const AttentionTile& tile) {
  if (tile.type == DType::f32)
    run_tile<DType::f32>(tile);
  else if (tile.type == DType::f16)
    run_tile<DType::f16>(tile);
  else if (tile.type == DType::bf16)
    run_tile<DType::bf16>(tile);
  else
    run_tile<DType::int8>(tile);
}

void attention_merge(const AttentionTile& tile, int first_query, int last_query) {
  const int width = stored_dim(tile.head_dim);
  for (int i = first_query; i < last_query; ++i) {
    Query query;
    query.largest = -__builtin_inff();
    query.sum = 0;
    for (int d = 0; d < width; d += 8) _mm256_store_ps(query.out + d, _mm256_setzero_ps());
    for (int s = 0; s * kKeyStep <= tile.position[i]; ++s) {
      const float* from = tile.partials + (int64_t{s} * tile.num_queries + i) * tile.partial_stride;
      merge(from, from[tile.partial_stride - 2], from[tile.partial_stride - 1], width, query);
    }
    write_row(query, tile.head_dim, tile.out[i]);
  }
}

}  // namespace chainpump::kernels::cpu::avx2
