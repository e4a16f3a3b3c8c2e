// Random inputs for the kernel tests: rows of every weight type with scales of a sane size, and
// comparisons by bits. Deterministic; one thread.
#pragma once

#include <bit>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "base/dtype.h"
#include "base/half.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/team.h"

namespace chainpump::kernels::cpu::testing {

inline const std::vector<DType> kAllTypes = {DType::f32,  DType::f16,  DType::bf16, DType::q8_0,
                                             DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                                             DType::q4_k, DType::q5_k, DType::q6_k};

inline bool is_k_type(DType type) {
  return type == DType::q4_k || type == DType::q5_k || type == DType::q6_k;
}

inline std::vector<float> random_floats(size_t count, uint32_t seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

/// Byte offsets of the f16 fields (scales) inside one block of `type`.
inline std::vector<size_t> f16_fields(DType type) {
  switch (type) {
    case DType::q4_0:
    case DType::q5_0:
    case DType::q8_0:
      return {0};
    case DType::q4_1:
    case DType::q5_1:
    case DType::q4_k:
    case DType::q5_k:
      return {0, 2};
    case DType::q6_k:
      return {208};
    case DType::f32:
    case DType::f16:
    case DType::bf16:
    case DType::int8:
      break;
  }
  return {};
}

/// rows x cols of `type` as they lie in a GGUF file: random quants, scales of about 0.01.
inline std::vector<std::byte> random_weights(DType type, int64_t rows, int64_t cols,
                                             uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.05f);
  std::vector<std::byte> raw(static_cast<size_t>(rows * row_bytes(type, cols)));
  if (type == DType::f32 || type == DType::f16 || type == DType::bf16) {
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float value = normal(random);
      const uint16_t half = type == DType::f16 ? float_to_f16(value) : float_to_bf16(value);
      if (type == DType::f32)
        std::memcpy(raw.data() + i * 4, &value, 4);
      else
        std::memcpy(raw.data() + i * 2, &half, 2);
    }
    return raw;
  }
  for (std::byte& byte : raw) byte = static_cast<std::byte>(random());
  const auto block_bytes = static_cast<size_t>(info(type).block_bytes);
  for (size_t at = 0; at < raw.size(); at += block_bytes) {
    for (const size_t field : f16_fields(type)) {
      const uint16_t half = float_to_f16(normal(random) * 0.2f);
      std::memcpy(raw.data() + at + field, &half, 2);
    }
  }
  return raw;
}

inline void check_equal_bits(std::span<const float> got, std::span<const float> want,
                             const std::string& what) {
  BOOST_REQUIRE_EQUAL(got.size(), want.size());
  size_t different = 0;
  size_t first = 0;
  for (size_t i = got.size(); i-- > 0;) {
    if (std::bit_cast<uint32_t>(got[i]) == std::bit_cast<uint32_t>(want[i])) continue;
    ++different;
    first = i;
  }
  BOOST_CHECK_MESSAGE(different == 0, what << ": " << different << " of " << got.size()
                                           << " differ, first at " << first);
}

/// Largest |got - want| / (1e-30 + largest |want|).
inline double relative_error(std::span<const float> got, std::span<const float> want) {
  double largest = 1e-30;
  double error = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(want[i])));
    error = std::max(error, std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i])));
  }
  return error / largest;
}

/// The vector variants of this machine.
inline std::vector<Isa> vector_isas() {
  std::vector<Isa> isas = available_isas();
  isas.erase(isas.begin());
  return isas;
}

}  // namespace chainpump::kernels::cpu::testing
