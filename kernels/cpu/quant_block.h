// Decodes 32 columns of one row of any quantised GGUF type into unsigned quants and their scales:
// the one place that knows GGML's block layouts. Packing and dequantisation are built on it.
//
// Layouts (little endian, d and m are f16):
//   q4_0  d, 16 bytes: byte j = column j low nibble, column j + 16 high       w = d (q - 8)
//   q4_1  d, m, 16 bytes as q4_0                                              w = d q + m
//   q5_0  d, u32 h, 16 bytes: bit j of h is bit 4 of column j                 w = d (q - 16)
//   q5_1  d, m, u32 h, 16 bytes                                               w = d q + m
//   q8_0  d, 32 signed bytes                                                  w = d q
//   q4_k  d, dmin, 12 bytes of 6-bit scales and minimums, 128 bytes: 64 columns in 32 bytes, first
//         the low nibbles then the high                              w = (d sc) q - (dmin mn)
//   q5_k  as q4_k with 32 bytes between: bit b of byte j is bit 4 of column j of the b-th 32
//   q6_k  128 bytes low nibbles, 64 bytes of 2 high bits, 16 signed scales, d; per half of 128
//         columns, see decode                                        w = (d sc) (q - 32)
// Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/dtype.h"
#include "kernels/cpu/layout.h"

namespace chainpump::kernels::cpu {

/// What a type needs in a panel.
struct QuantTraits {
  QuantBits bits;
  ScaleKind scale_kind;
  int32_t offset_shift;
};

constexpr QuantTraits quant_traits(DType type) {
  switch (type) {
    case DType::q4_0:
      return {QuantBits::b4, ScaleKind::scale, 3};
    case DType::q4_1:
      return {QuantBits::b4, ScaleKind::scale_min, 0};
    case DType::q5_0:
      return {QuantBits::b5, ScaleKind::scale, 4};
    case DType::q5_1:
      return {QuantBits::b5, ScaleKind::scale_min, 0};
    case DType::q4_k:
      return {QuantBits::b4, ScaleKind::k_min, 0};
    case DType::q5_k:
      return {QuantBits::b5, ScaleKind::k_min, 0};
    case DType::q6_k:
      return {QuantBits::b6, ScaleKind::k6, 5};
    case DType::q8_0:
    case DType::f32:
    case DType::f16:
    case DType::bf16:
    case DType::int8:
      break;
  }
  return {QuantBits::b8, ScaleKind::scale, 7};
}

/// 32 columns of one row. `d` and `m` are f16 bits as in the file; `sc` and `mn` the small scales
/// of K types (for q6_k: sc and mn are the signed scales of the first and last 16 columns).
struct QuantBlock {
  uint32_t groups[kGroups];  // byte k of groups[g] is the quant of column 4g + k
  uint16_t d;
  uint16_t m;
  uint8_t sc;
  uint8_t mn;
};

namespace quant_detail {

template <typename T>
inline T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

inline void low_and_high_nibbles(const std::byte* bytes, uint32_t* groups) {
  for (int p = 0; p < 4; ++p) {
    const auto word = load<uint32_t>(bytes + 4 * p);
    groups[p] = word & 0x0f0f0f0f;
    groups[p + 4] = word >> 4 & 0x0f0f0f0f;
  }
}

// Adds bit c of `high` as bit 4 of column c.
inline void fifth_bits(uint32_t high, uint32_t* groups) {
  for (int g = 0; g < kGroups; ++g) {
    const uint32_t nibble = high >> (4 * g) & 0xf;
    groups[g] |= (nibble * 0x00204081 & 0x01010101) << 4;  // bit k to byte k
  }
}

// The 6-bit scale and minimum of the b-th 32 columns of q4_k and q5_k.
inline void k_scales(const std::byte* packed, int b, uint8_t* sc, uint8_t* mn) {
  const auto* s = reinterpret_cast<const uint8_t*>(packed);
  if (b < 4) {
    *sc = s[b] & 63;
    *mn = s[b + 4] & 63;
  } else {
    *sc = static_cast<uint8_t>((s[b + 4] & 0xf) | (s[b - 4] >> 6) << 4);
    *mn = static_cast<uint8_t>(s[b + 4] >> 4 | (s[b] >> 6) << 4);
  }
}

inline void decode_k45(DType type, const std::byte* super, int b, QuantBlock* out) {
  const std::byte* nibbles = super + (type == DType::q4_k ? 16 : 48) + 32 * (b / 2);
  out->d = load<uint16_t>(super);
  out->m = load<uint16_t>(super + 2);
  k_scales(super + 4, b, &out->sc, &out->mn);
  for (int g = 0; g < kGroups; ++g) {
    out->groups[g] = load<uint32_t>(nibbles + 4 * g) >> (4 * (b & 1)) & 0x0f0f0f0f;
    if (type == DType::q5_k)
      out->groups[g] |= (load<uint32_t>(super + 16 + 4 * g) >> b & 0x01010101) << 4;
  }
}

inline void decode_k6(const std::byte* super, int b, QuantBlock* out) {
  const int half = b / 4;
  const int part = b % 4;  // parts 0, 1 use the low nibbles of bytes 0.., 32.., parts 2, 3 the high
  const std::byte* low = super + 64 * half + 32 * (part & 1);
  const std::byte* high = super + 128 + 32 * half;
  for (int g = 0; g < kGroups; ++g) {
    const uint32_t nibble = load<uint32_t>(low + 4 * g) >> (4 * (part >> 1)) & 0x0f0f0f0f;
    const uint32_t two = load<uint32_t>(high + 4 * g) >> (2 * part) & 0x03030303;
    out->groups[g] = nibble | two << 4;
  }
  out->sc = load<uint8_t>(super + 192 + 2 * b);
  out->mn = load<uint8_t>(super + 193 + 2 * b);
  out->d = load<uint16_t>(super + 208);
  out->m = 0;
}

}  // namespace quant_detail

/// Block `b` (of 32 columns) of the row at `row`.
inline void decode_block(DType type, const std::byte* row, int64_t b, QuantBlock* out) {
  using quant_detail::load;
  *out = QuantBlock{};
  switch (type) {
    case DType::q4_0: {
      const std::byte* at = row + b * 18;
      out->d = load<uint16_t>(at);
      quant_detail::low_and_high_nibbles(at + 2, out->groups);
      return;
    }
    case DType::q4_1: {
      const std::byte* at = row + b * 20;
      out->d = load<uint16_t>(at);
      out->m = load<uint16_t>(at + 2);
      quant_detail::low_and_high_nibbles(at + 4, out->groups);
      return;
    }
    case DType::q5_0: {
      const std::byte* at = row + b * 22;
      out->d = load<uint16_t>(at);
      quant_detail::low_and_high_nibbles(at + 6, out->groups);
      quant_detail::fifth_bits(load<uint32_t>(at + 2), out->groups);
      return;
    }
    case DType::q5_1: {
      const std::byte* at = row + b * 24;
      out->d = load<uint16_t>(at);
      out->m = load<uint16_t>(at + 2);
      quant_detail::low_and_high_nibbles(at + 8, out->groups);
      quant_detail::fifth_bits(load<uint32_t>(at + 4), out->groups);
      return;
    }
    case DType::q8_0: {
      const std::byte* at = row + b * 34;
      out->d = load<uint16_t>(at);
      for (int g = 0; g < kGroups; ++g)
        out->groups[g] = load<uint32_t>(at + 2 + 4 * g) ^ 0x80808080;  // q + 128
      return;
    }
    case DType::q4_k:
      return quant_detail::decode_k45(type, row + b / 8 * 144, static_cast<int>(b % 8), out);
    case DType::q5_k:
      return quant_detail::decode_k45(type, row + b / 8 * 176, static_cast<int>(b % 8), out);
    case DType::q6_k:
      return quant_detail::decode_k6(row + b / 8 * 210, static_cast<int>(b % 8), out);
    case DType::f32:
    case DType::f16:
    case DType::bf16:
    case DType::int8:
      return;
  }
}

}  // namespace chainpump::kernels::cpu
