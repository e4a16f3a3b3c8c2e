// dequantize_row against formulas written element by element from GGML's description of each block.
#include "kernels/cpu/matmul.h"
#include "tests/kernels/kernel_fixture.h"

namespace chainpump::kernels::cpu {
namespace {

using testing::kAllTypes;
using testing::random_weights;

struct Row {
  const std::byte* bytes;
  uint8_t u8(size_t at) const { return static_cast<uint8_t>(bytes[at]); }
  int8_t s8(size_t at) const { return static_cast<int8_t>(bytes[at]); }
  float f16(size_t at) const {
    return f16_to_float(static_cast<uint16_t>(u8(at) | u8(at + 1) << 8));
  }
};

int nibble(const Row& row, size_t at, size_t i) {  // of 32: low nibbles first
  return i < 16 ? row.u8(at + i) & 15 : row.u8(at + i - 16) >> 4;
}

int bit(const Row& row, size_t at, size_t i) { return row.u8(at + i / 8) >> (i % 8) & 1; }

void k_scale(const Row& row, size_t at, size_t j, int* scale, int* minimum) {
  if (j < 4) {
    *scale = row.u8(at + j) & 63;
    *minimum = row.u8(at + j + 4) & 63;
  } else {
    *scale = (row.u8(at + j + 4) & 15) + (row.u8(at + j - 4) >> 6) * 16;
    *minimum = (row.u8(at + j + 4) >> 4) + (row.u8(at + j) >> 6) * 16;
  }
}

float element_k(DType type, const Row& row, size_t at, size_t i) {
  if (type == DType::q6_k) {
    const size_t half = i / 128;
    const size_t in_half = i % 128;
    const size_t part = in_half / 32;
    const size_t l = in_half % 32;
    const uint8_t low = row.u8(at + 64 * half + 32 * (part % 2) + l);
    const int nib = part < 2 ? low & 15 : low >> 4;
    const int high = row.u8(at + 128 + 32 * half + l) >> (2 * part) & 3;
    return row.f16(at + 208) * static_cast<float>(row.s8(at + 192 + i / 16)) *
           static_cast<float>((nib | high << 4) - 32);
  }
  const size_t nibbles = type == DType::q4_k ? 16 : 48;
  int scale = 0;
  int minimum = 0;
  k_scale(row, at + 4, i / 32, &scale, &minimum);
  const uint8_t byte = row.u8(at + nibbles + i / 64 * 32 + i % 32);
  int q = i % 64 < 32 ? byte & 15 : byte >> 4;
  if (type == DType::q5_k) q += (row.u8(at + 16 + i % 32) >> (i / 32) & 1) * 16;
  const float d1 = row.f16(at) * static_cast<float>(scale);
  const float m1 = row.f16(at + 2) * static_cast<float>(minimum);
  return d1 * static_cast<float>(q) - m1;
}

float element(DType type, const Row& row, size_t c) {
  const auto per_block = static_cast<size_t>(info(type).block_elements);
  const size_t at = c / per_block * static_cast<size_t>(info(type).block_bytes);
  const size_t i = c % per_block;
  switch (type) {
    case DType::f32: {
      float value;
      std::memcpy(&value, row.bytes + at, 4);
      return value;
    }
    case DType::f16:
      return row.f16(at);
    case DType::bf16:
      return bf16_to_float(static_cast<uint16_t>(row.u8(at) | row.u8(at + 1) << 8));
    case DType::q8_0:
      return static_cast<float>(row.s8(at + 2 + i)) * row.f16(at);
    case DType::q4_0:
      return static_cast<float>(nibble(row, at + 2, i) - 8) * row.f16(at);
    case DType::q4_1:
      return static_cast<float>(nibble(row, at + 4, i)) * row.f16(at) + row.f16(at + 2);
    case DType::q5_0:
      return static_cast<float>(nibble(row, at + 6, i) + 16 * bit(row, at + 2, i) - 16) *
             row.f16(at);
    case DType::q5_1:
      return static_cast<float>(nibble(row, at + 8, i) + 16 * bit(row, at + 4, i)) * row.f16(at) +
             row.f16(at + 2);
    case DType::q4_k:
    case DType::q5_k:
    case DType::q6_k:
      return element_k(type, row, at, i);
    case DType::int8:
      break;
  }
  return 0;
}

BOOST_AUTO_TEST_CASE(every_type_matches_its_formula) {
  for (const DType type : kAllTypes) {
    const int64_t cols = 1024;
    const auto raw = random_weights(type, 1, cols, 7);
    std::vector<float> got(static_cast<size_t>(cols));
    dequantize_row(type, raw, got);
    std::vector<float> want(got.size());
    for (size_t c = 0; c < want.size(); ++c) want[c] = element(type, Row{raw.data()}, c);
    testing::check_equal_bits(got, want, std::string(to_string(type)));
  }
}

}  // namespace
}  // namespace chainpump::kernels::cpu
