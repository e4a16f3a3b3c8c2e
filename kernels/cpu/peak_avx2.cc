// What the machine can do at most, AVX2: a plain sweep over memory, and multiply-adds between
// registers in enough independent chains to hide their latency. The bounds of every kernel here.
#include <immintrin.h>

#include "kernels/cpu/avx2.h"

namespace chainpump::kernels::cpu::avx2 {
namespace {

constexpr int kChains = 12;
constexpr int kLanes = 8;

// Keeps `value` alive, so that the loop before it is not removed.
template <typename T>
inline void use(T& value) {
  asm volatile("" : "+v"(value));
}

}  // namespace

uint64_t read_sweep(const std::byte* data, int64_t bytes) {
  __m256i fold[8];
  for (__m256i& one : fold) one = _mm256_setzero_si256();
  for (int64_t at = 0; at < bytes; at += 256) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const auto* from = reinterpret_cast<const __m256i*>(data + at + i * 32);
      if (i % 2 == 0)
        _mm_prefetch(reinterpret_cast<const char*>(data + at + 4096 + i * 32), _MM_HINT_NTA);
      fold[i] = _mm256_xor_si256(fold[i], _mm256_loadu_si256(from));
    }
  }
  for (int i = 1; i < 8; ++i) fold[0] = _mm256_xor_si256(fold[0], fold[i]);
  return static_cast<uint64_t>(_mm256_extract_epi64(fold[0], 0));
}

int64_t spin_int8(int64_t rounds) {
  __m256i acc[kChains];
  for (__m256i& one : acc) one = _mm256_setzero_si256();
  __m256i w = _mm256_set1_epi8(3);
  __m256i a = _mm256_set1_epi8(5);
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      use(a);
      acc[c] = _mm256_add_epi32(acc[c], _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), ones));
    }
  }
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) use(acc[c]);
  return rounds * kChains * kLanes * 4 * 2;
}

int64_t spin_f32(int64_t rounds) {
  __m256 acc[kChains];
  for (__m256& one : acc) one = _mm256_setzero_ps();
  __m256 w = _mm256_set1_ps(1e-3f);
  __m256 a = _mm256_set1_ps(2e-3f);
  for (int64_t i = 0; i < rounds; ++i) {
    use(w);
    use(a);
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) acc[c] = _mm256_fmadd_ps(w, a, acc[c]);
  }
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) use(acc[c]);
  return rounds * kChains * kLanes * 2;
}

int64_t spin_bf16(int64_t rounds) { return spin_f32(rounds); }  // no bf16 products here

}  // namespace chainpump::kernels::cpu::avx2
