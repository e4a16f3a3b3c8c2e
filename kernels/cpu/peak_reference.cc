// The machine's rates as plain C++ reaches them.
#include <cmath>
#include <cstring>

#include "kernels/cpu/reference.h"

namespace chainpump::kernels::cpu::reference {
namespace {

template <typename T>
void use(T& value) {
  asm volatile("" : "+m"(value));
}

}  // namespace

uint64_t read_sweep(const std::byte* data, int64_t bytes) {
  uint64_t fold[8] = {};
  for (int64_t at = 0; at < bytes; at += 64) {
    uint64_t words[8];
    std::memcpy(words, data + at, 64);
    for (int i = 0; i < 8; ++i) fold[i] ^= words[i];
  }
  for (int i = 1; i < 8; ++i) fold[0] ^= fold[i];
  return fold[0];
}

int64_t spin_int8(int64_t rounds) {
  int32_t acc[8] = {};
  for (int64_t i = 0; i < rounds; ++i) {
    int32_t w = 3;
    use(w);
    for (int c = 0; c < 8; ++c) acc[c] += w * 5;
    use(acc);
  }
  return rounds * 8 * 2;
}

int64_t spin_f32(int64_t rounds) {
  float acc[8] = {};
  for (int64_t i = 0; i < rounds; ++i) {
    for (int c = 0; c < 8; ++c) acc[c] = std::fma(1e-3f, 2e-3f, acc[c]);
    use(acc);
  }
  return rounds * 8 * 2;
}

int64_t spin_bf16(int64_t rounds) { return spin_f32(rounds); }

}  // namespace chainpump::kernels::cpu::reference
