#include "transport/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace chainpump::transport {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;

constexpr uint32_t times_x(uint32_t c) { return c >> 1 ^ ((c & 1) != 0 ? kPolynomial : 0); }

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = times_x(c);
    table[i] = c;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kTable = make_table();

#if defined(__x86_64__)

// The constant that moves a checksum past `bytes` zero bytes. Bit i of a reflected value stands for
// x^(31-i). A carry-less product of two such values, read as 64 reflected bits, is a*b*x, and the
// crc32 instruction on 64 bits multiplies by x^32 and reduces: so a*b*x^33 comes out, and shifting
// by n bytes takes b = x^(8n-33) mod P.
constexpr uint32_t shift_constant(int bytes) {
  uint32_t c = 0x80000000;  // x^0
  for (int i = 0; i < 8 * bytes - 33; ++i) c = times_x(c);
  return c;
}

__attribute__((target("sse4.2,pclmul"))) inline uint64_t shift(uint64_t crc, uint32_t constant) {
  const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<int64_t>(crc)),
                                               _mm_cvtsi32_si128(static_cast<int>(constant)), 0);
  return _mm_crc32_u64(0, static_cast<uint64_t>(_mm_cvtsi128_si64(product)));
}

inline uint64_t load64(const std::byte* p) {
  uint64_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// Three chains of kLane bytes side by side: the instruction takes 3 cycles and one can start in
// each, so one chain alone would leave two thirds of the unit idle.
template <int kLane>
__attribute__((target("sse4.2,pclmul"))) const std::byte* three_chains(const std::byte* p,
                                                                       size_t& left,
                                                                       uint64_t& crc) {
  static_assert(kLane % 8 == 0);
  constexpr uint32_t kOne = shift_constant(kLane);
  constexpr uint32_t kTwo = shift_constant(2 * kLane);
  while (left >= 3 * size_t{kLane}) {
    uint64_t a = crc;
    uint64_t b = 0;
    uint64_t c = 0;
    for (const std::byte* end = p + kLane; p < end; p += 8) {
      a = _mm_crc32_u64(a, load64(p));
      b = _mm_crc32_u64(b, load64(p + kLane));
      c = _mm_crc32_u64(c, load64(p + 2 * kLane));
    }
    crc = shift(a, kTwo) ^ shift(b, kOne) ^ c;
    p += 2 * kLane;
    left -= 3 * size_t{kLane};
  }
  return p;
}

__attribute__((target("sse4.2,pclmul"))) uint32_t crc32c_sse42(std::span<const std::byte> bytes,
                                                               uint32_t seed) {
  const std::byte* p = bytes.data();
  size_t left = bytes.size();
  uint64_t crc = ~seed;
  p = three_chains<4096>(p, left, crc);
  p = three_chains<256>(p, left, crc);
  for (; left >= 8; left -= 8, p += 8) crc = _mm_crc32_u64(crc, load64(p));
  auto narrow = static_cast<uint32_t>(crc);
  for (; left > 0; --left, ++p) narrow = _mm_crc32_u8(narrow, static_cast<uint8_t>(*p));
  return ~narrow;
}

#endif

using Function = uint32_t (*)(std::span<const std::byte>, uint32_t);

Function choose() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) return crc32c_sse42;
#endif
  return crc32c_reference;
}

}  // namespace

uint32_t crc32c_reference(std::span<const std::byte> bytes, uint32_t crc) {
  crc = ~crc;
  for (const std::byte b : bytes) crc = crc >> 8 ^ kTable[(crc ^ static_cast<uint32_t>(b)) & 0xff];
  return ~crc;
}

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t crc) {
  static const Function function = choose();
  return function(bytes, crc);
}

}  // namespace chainpump::transport
