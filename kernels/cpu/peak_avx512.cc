// What the machine can do at most, AVX-512: a plain sweep over memory, and multiply-adds between
// registers in enough independent chains to hide their latency. The bounds of every kernel here.
#include <immintrin.h>

#include "kernels/cpu/avx512.h"

namespace chainpump::kernels::cpu::avx512 {
namespace {

constexpr int kChains = 16;
constexpr int kLanes = 16;

// Keeps `value` alive, so that the loop before it is not removed.
template <typename T>
inline void use(T& value) {
  asm volatile("" : "+v"(value));
}

}  // namespace

uint64_t read_sweep(const std::byte* data, int64_t bytes) {
  __m512i fold[8];
  for (__m512i& one : fold) one = _mm512_setzero_si512();
  for (int64_t at = 0; at < bytes; at += 512) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      _mm_prefetch(reinterpret_cast<const char*>(data + at + 4096 + i * 64), _MM_HINT_NTA);
      fold[i] = _mm512_xor_si512(fold[i], _mm512_loadu_si512(data + at + i * 64));
    }
  }
  for (int i = 1; i < 8; ++i) fold[0] = _mm512_xor_si512(fold[0], fold[i]);
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(fold[0]));
}

int64_t spin_int8(int64_t rounds) {
  __m512i acc[kChains];
  for (__m512i& one : acc) one = _mm512_setzero_si512();
  __m512i w = _mm512_set1_epi8(3);
  __m512i a = _mm512_set1_epi8(5);
  for (int64_t i = 0; i < rounds; ++i) {
    use(w);
    use(a);
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) acc[c] = _mm512_dpbusd_epi32(acc[c], w, a);
  }
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) use(acc[c]);
  return rounds * kChains * kLanes * 4 * 2;
}

int64_t spin_f32(int64_t rounds) {
  __m512 acc[kChains];
  for (__m512& one : acc) one = _mm512_setzero_ps();
  __m512 w = _mm512_set1_ps(1e-3f);
  __m512 a = _mm512_set1_ps(2e-3f);
  for (int64_t i = 0; i < rounds; ++i) {
    use(w);
    use(a);
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) acc[c] = _mm512_fmadd_ps(w, a, acc[c]);
  }
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) use(acc[c]);
  return rounds * kChains * kLanes * 2;
}

int64_t spin_bf16(int64_t rounds) {
  __m512 acc[kChains];
  for (__m512& one : acc) one = _mm512_setzero_ps();
  __m512 w = _mm512_castsi512_ps(_mm512_set1_epi16(0x3c00));
  for (int64_t i = 0; i < rounds; ++i) {
    use(w);
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c)
      acc[c] =
          _mm512_dpbf16_ps(acc[c], reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(w));
  }
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) use(acc[c]);
  return rounds * kChains * kLanes * 2 * 2;
}

}  // namespace chainpump::kernels::cpu::avx512
