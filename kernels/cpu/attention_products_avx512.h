// The two products of attention on AVX-512, a block of keys with a few queries, and the state of a
// tile that they work on. For attention_avx512.cc only: everything is internal to it.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/attention_tile.h"

namespace chainpump::kernels::cpu::avx512 {
namespace {

constexpr int kBlock = 32;  // kKvBlockTokens
constexpr int kBlocks = kKeyStep / kBlock;
constexpr int kGroup = 8;  // queries that meet a loaded K vector
constexpr float kWeightLevels = 32767.0f;

// Queries are stored as 4-byte runs (a f32, two bf16, four int8), weights likewise.
struct State {
  alignas(64) uint32_t q[kMaxTileQueries * kMaxHeadDim];         // [group][run][kGroup]
  alignas(64) float p[kMaxTileQueries][kKeyStep];                // scores, then weights
  alignas(64) float step_out[2][kMaxTileQueries * kMaxHeadDim];  // [query][width]; int8: high, low
  alignas(64) float out[kMaxTileQueries * kMaxHeadDim];
  alignas(64) float largest[kMaxTileQueries];
  alignas(64) float sum[kMaxTileQueries];
  alignas(64) float step_largest[kMaxTileQueries];
  alignas(64) float step_sum[kMaxTileQueries];
  alignas(64) float before[kMaxTileQueries];
  alignas(64) float added[kMaxTileQueries];
  float q_scale[kMaxTileQueries];
  int32_t q_bias[kMaxTileQueries];  // -128 * (sum of the int8): K is stored plus 128
  float weight_scale[kMaxTileQueries];
  int num_keys[kMaxTileQueries];  // visible in this step; 0: none
  const std::byte* blocks[kBlocks];
  const std::byte* next_blocks[kBlocks];   // of the next step
  const std::byte* values_ahead[kBlocks];  // what to fetch with V of each block
  bool is_read_once;  // each block meets one group: memory is what it waits for
};

constexpr int run_of(DType type) { return type == DType::int8 ? 4 : type == DType::bf16 ? 2 : 1; }
constexpr int element_bytes(DType type) {
  return type == DType::f32 ? 4 : type == DType::int8 ? 1 : 2;
}
// Memory of 16 lanes of runs.
constexpr int vector_bytes(DType type) { return type == DType::f16 ? 32 : 64; }

inline int stored_dim(int head_dim) { return (head_dim + 15) / 16 * 16; }
inline __mmask16 first_lanes(int count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1);
}
inline int smaller(int a, int b) { return a < b ? a : b; }

template <DType kType>
inline __m512 load_runs(const std::byte* at) {
  if constexpr (kType == DType::f16)
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
  return _mm512_loadu_ps(at);
}

// Into L1 what comes next; into L2 what comes a step later, past the few misses that L1 keeps open.
inline void fetch(const std::byte* at, bool far) {
  if (far)
    _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T1);
  else
    _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T0);
}

inline __m512 broadcast(uint32_t run) {
  return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(run)));
}

// acc + a * b; for int8 `a` is unsigned and `b` signed.
template <DType kType>
inline __m512 multiply_add(__m512 acc, __m512 a, __m512 b) {
  if constexpr (kType == DType::bf16) {
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  } else if constexpr (kType == DType::int8) {
    return _mm512_castsi512_ps(_mm512_dpbusd_epi32(_mm512_castps_si512(acc), _mm512_castps_si512(a),
                                                   _mm512_castps_si512(b)));
  } else {
    return _mm512_fmadd_ps(a, b, acc);
  }
}

// Scores of kCount queries with the 32 positions of one block.
struct ScoreJob {
  const std::byte* k;
  const std::byte* ahead;  // to be fetched meanwhile, or null
  bool far;                // it is of the next step
  const float* k_scale;    // int8
  const uint32_t* q;       // [run][kGroup]
  const float* q_scale;
  const int32_t* q_bias;
  float* s;  // kKeyStep floats from query to query
  int num_runs;
};

template <DType kType, int kCount>
void scores(const ScoreJob& job) {
  constexpr int kBytes = vector_bytes(kType);
  __m512 acc[kCount][2];
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) {
    acc[i][0] = acc[i][1] = kType == DType::int8 ? broadcast(static_cast<uint32_t>(job.q_bias[i]))
                                                 : _mm512_setzero_ps();
  }
  const std::byte* k = job.k;
  const uint32_t* q = job.q;
  const int64_t ahead = job.ahead == nullptr ? 0 : job.ahead - job.k;
  if (kType == DType::int8 && job.far) {
    const auto* scales = reinterpret_cast<const std::byte*>(job.k_scale) + ahead;
    for (int i = 0; i < 4; ++i) fetch(scales + 64 * i, true);  // of keys, then of values
  }
  for (int r = 0; r < job.num_runs; ++r, k += 2 * kBytes, q += kGroup) {
    const __m512 k0 = load_runs<kType>(k);
    const __m512 k1 = load_runs<kType>(k + kBytes);
    if (ahead != 0) {
      fetch(k + ahead, job.far);
      if (kBytes == 64) fetch(k + ahead + 64, job.far);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      const __m512 x = broadcast(q[i]);
      acc[i][0] = multiply_add<kType>(acc[i][0], k0, x);
      acc[i][1] = multiply_add<kType>(acc[i][1], k1, x);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      if constexpr (kType == DType::int8) {
        acc[i][half] =
            _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_castps_si512(acc[i][half])),
                                        _mm512_loadu_ps(job.k_scale + 16 * half)),
                          _mm512_set1_ps(job.q_scale[i]));
      }
      _mm512_storeu_ps(job.s + i * kKeyStep + 16 * half, acc[i][half]);
    }
  }
}

// Adds runs of positions of one block, or of several whole ones, 16 * kVectors dimensions, to what
// kCount queries have.
struct ValueJob {
  const std::byte* const* blocks;
  const std::byte* const* ahead;  // one per block, to be fetched meanwhile, or null
  bool far;
  int num_blocks;
  int64_t offset;  // in a block: of the first run, the first of the dimensions
  int64_t ahead_offset;
  const uint32_t* p;  // of the first run; kKeyStep from query to query
  float* out;         // [query][width]
  int num_runs;       // of each block
  int width;
};

template <DType kType, int kCount, int kVectors>
void values(const ValueJob& job) {
  constexpr int kBytes = vector_bytes(kType);
  __m512 acc[kCount][kVectors];
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i)
#pragma GCC unroll 4
    for (int c = 0; c < kVectors; ++c)
      acc[i][c] = _mm512_loadu_ps(job.out + i * job.width + 16 * c);
  const int64_t row = int64_t{job.width} / 16 * kBytes;
  const uint32_t* p = job.p;
  for (int b = 0; b < job.num_blocks; ++b) {
    const std::byte* v = job.blocks[b] + job.offset;
    const int64_t ahead = job.ahead == nullptr ? 0 : job.ahead[b] + job.ahead_offset - v;
    for (int r = 0; r < job.num_runs; ++r, v += row, ++p) {
      __m512 x[kVectors];
#pragma GCC unroll 4
      for (int c = 0; c < kVectors; ++c) {
        x[c] = load_runs<kType>(v + c * kBytes);
        if (ahead != 0) fetch(v + ahead + c * kBytes, job.far);
      }
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) {
        const __m512 weight = broadcast(p[i * kKeyStep]);
#pragma GCC unroll 4
        for (int c = 0; c < kVectors; ++c) acc[i][c] = multiply_add<kType>(acc[i][c], weight, x[c]);
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i)
#pragma GCC unroll 4
    for (int c = 0; c < kVectors; ++c)
      _mm512_storeu_ps(job.out + i * job.width + 16 * c, acc[i][c]);
}

// The even position of a last pair whose odd one is not visible, for one query.
void even_value(const std::byte* v, float weight, int width, float* out) {
  for (int d = 0; d < width; d += 16) {
    const __m512i pairs = _mm512_loadu_si512(v + d * 4);
    const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    _mm512_storeu_ps(out + d,
                     _mm512_fmadd_ps(_mm512_set1_ps(weight), even, _mm512_loadu_ps(out + d)));
  }
}

template <DType kType>
using ScoreKernel = void (*)(const ScoreJob&);
template <DType kType>
constexpr ScoreKernel<kType> kScores[] = {nullptr,          scores<kType, 1>, scores<kType, 2>,
                                          scores<kType, 3>, scores<kType, 4>, scores<kType, 5>,
                                          scores<kType, 6>, scores<kType, 7>, scores<kType, 8>};

using ValueKernel = void (*)(const ValueJob&);
template <DType kType, int kCount>
constexpr ValueKernel kValuesOf[] = {nullptr, values<kType, kCount, 1>, values<kType, kCount, 2>,
                                     values<kType, kCount, 3>, values<kType, kCount, 4>};

template <DType kType>
void value_block(int count, ValueJob job) {
  const int64_t offset = job.offset;
  float* out = job.out;
  for (int d = 0; d < job.width; d += 64) {
    const int vectors = smaller(4, (job.width - d) / 16);
    job.ahead_offset = d / 16 * vector_bytes(kType);
    job.offset = offset + job.ahead_offset;
    job.out = out + d;
    switch (count) {
      case 1:
        kValuesOf<kType, 1>[vectors](job);
        break;
      case 2:
        kValuesOf<kType, 2>[vectors](job);
        break;
      case 3:
        kValuesOf<kType, 3>[vectors](job);
        break;
      default:
        kValuesOf<kType, 4>[vectors](job);
        break;
    }
  }
}

}  // namespace
}  // namespace chainpump::kernels::cpu::avx512
