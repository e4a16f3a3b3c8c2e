// Products of a few queries with runs of keys, or of their weights with runs of values, on 8 lanes:
// the inner loop of attention_avx2.cc. For the AVX2 files only: everything is internal to the file
// that includes it. One thread per call; writes only `sums`.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace chainpump::kernels::cpu::avx2 {
namespace {

constexpr int kGroup = 3;  // queries that meet a loaded vector: 12 sums and what feeds them

constexpr int run_of(DType type) { return type == DType::int8 ? 4 : type == DType::bf16 ? 2 : 1; }
constexpr int element_bytes(DType type) {
  return type == DType::f32 ? 4 : type == DType::int8 ? 1 : 2;
}
// A run of bf16 or int8 is multiplied in two parts of 32 bits: the odd and the even f32, or the
// even and the odd pair of 16-bit integers.
constexpr int parts_of(DType type) { return run_of(type) > 1 ? 2 : 1; }
constexpr int vector_bytes(DType type) { return type == DType::f16 ? 16 : 32; }  // 8 lanes of runs

template <DType kType, bool kIsKey>
inline void load_parts(const std::byte* at, __m256* parts) {
  if constexpr (kType == DType::f16) {
    parts[0] = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  } else if constexpr (kType == DType::f32) {
    parts[0] = _mm256_loadu_ps(reinterpret_cast<const float*>(at));
  } else {
    const __m256i runs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    if constexpr (kType == DType::bf16) {
      parts[0] = _mm256_castsi256_ps(_mm256_and_si256(runs, _mm256_set1_epi32(-65536)));
      parts[1] = _mm256_castsi256_ps(_mm256_slli_epi32(runs, 16));
    } else if constexpr (kIsKey) {  // unsigned
      parts[0] = _mm256_castsi256_ps(_mm256_and_si256(runs, _mm256_set1_epi16(255)));
      parts[1] = _mm256_castsi256_ps(_mm256_srli_epi16(runs, 8));
    } else {
      parts[0] = _mm256_castsi256_ps(_mm256_srai_epi16(_mm256_slli_epi16(runs, 8), 8));
      parts[1] = _mm256_castsi256_ps(_mm256_srai_epi16(runs, 8));
    }
  }
}

template <DType kType>
inline __m256 multiply_add(__m256 acc, __m256 a, __m256 b) {
  if constexpr (kType == DType::int8) {
    const __m256i product = _mm256_madd_epi16(_mm256_castps_si256(a), _mm256_castps_si256(b));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(acc), product));
  } else {
    return _mm256_fmadd_ps(a, b, acc);
  }
}

// Adds `num_runs` runs of kWide vectors, `row` bytes apart, times runs of kCount queries. `stride`
// of x and sums: floats from query to query. All sums stay in registers: every loop over them is
// unrolled, and the number of vectors is known to the compiler. What lies `ahead` bytes further, if
// not 0, is asked for on the way.
template <DType kType, bool kIsKey, int kCount, int kWide>
void multiply_wide(const std::byte* at, int64_t row, const float* x, int64_t stride, int num_runs,
                   int64_t ahead, float* sums) {
  constexpr int kParts = parts_of(kType);
  __m256 acc[kCount][kWide];
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i)
#pragma GCC unroll 4
    for (int c = 0; c < kWide; ++c) acc[i][c] = _mm256_loadu_ps(sums + i * stride + 8 * c);
  for (int r = 0; r < num_runs; ++r, at += row, x += kParts) {
    if (ahead != 0) {
      const auto* next = reinterpret_cast<const char*>(at) + ahead;
      _mm_prefetch(next, _MM_HINT_T1);
      if (kWide * vector_bytes(kType) > 64) _mm_prefetch(next + 64, _MM_HINT_T1);
    }
#pragma GCC unroll 4
    for (int c = 0; c < kWide; ++c) {
      __m256 parts[kParts];
      load_parts<kType, kIsKey>(at + c * vector_bytes(kType), parts);
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i)
#pragma GCC unroll 2
        for (int part = 0; part < kParts; ++part)
          acc[i][c] = multiply_add<kType>(acc[i][c], parts[part],
                                          _mm256_broadcast_ss(x + i * stride + part));
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i)
#pragma GCC unroll 4
    for (int c = 0; c < kWide; ++c) _mm256_storeu_ps(sums + i * stride + 8 * c, acc[i][c]);
}

// `vectors` is 4, or 2 where the rest of the dimensions is no more: they come in sixteens.
template <DType kType, bool kIsKey>
void multiply(int count, const std::byte* at, int64_t row, const float* x, int64_t stride,
              int num_runs, int vectors, int64_t ahead, float* sums) {
  const auto kernel = vectors == 4 ? (count == 3   ? multiply_wide<kType, kIsKey, 3, 4>
                                      : count == 2 ? multiply_wide<kType, kIsKey, 2, 4>
                                                   : multiply_wide<kType, kIsKey, 1, 4>)
                                   : (count == 3   ? multiply_wide<kType, kIsKey, 3, 2>
                                      : count == 2 ? multiply_wide<kType, kIsKey, 2, 2>
                                                   : multiply_wide<kType, kIsKey, 1, 2>);
  kernel(at, row, x, stride, num_runs, ahead, sums);
}

}  // namespace
}  // namespace chainpump::kernels::cpu::avx2
