#include "models/quantize/encode.h"

#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "base/half.h"

namespace chainpump::models {
namespace {

constexpr int kBlock = 32;

template <typename T>
void store(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof(T));
}

// GGML's rule for a step: its inverse, or 0 where all values are alike.
float inverse_of(float step) { return step != 0.0f ? 1.0f / step : 0.0f; }

// Truncates to [0, top]. An overflow of the inverse (steps below 2^-126) may make it NaN: that is
// 0.
uint8_t truncated(float value, int top) {
  if (value >= static_cast<float>(top)) return static_cast<uint8_t>(top);
  return value > 0.0f ? static_cast<uint8_t>(value) : 0;
}

// Byte j: column j in the low nibble, column j + 16 in the high one. Fifth bits, if `high` is
// given: bit c belongs to column c.
void store_nibbles(const uint8_t (&q)[kBlock], std::byte* high, std::byte* nibbles) {
  uint32_t bits = 0;
  for (int c = 0; c < kBlock; ++c) bits |= uint32_t{q[c]} >> 4 << c;
  if (high != nullptr) store(high, bits);
  for (int j = 0; j < kBlock / 2; ++j)
    nibbles[j] = static_cast<std::byte>((q[j] & 0xf) | (q[j + kBlock / 2] & 0xf) << 4);
}

// Q4_0 and Q5_0: the value of largest magnitude becomes the lowest quant, -levels / 2.
void encode_scaled(const float* x, int levels, std::byte* out) {
  float extreme = 0.0f;
  for (int c = 0; c < kBlock; ++c)
    if (std::fabs(x[c]) > std::fabs(extreme)) extreme = x[c];
  const float middle = static_cast<float>(levels / 2);
  const float d = extreme / -middle;
  const float inverse = inverse_of(d);
  uint8_t q[kBlock];
  for (int c = 0; c < kBlock; ++c) q[c] = truncated(x[c] * inverse + (middle + 0.5f), levels - 1);
  store(out, float_to_f16(d));
  const bool fifth = levels == 32;
  store_nibbles(q, fifth ? out + 2 : nullptr, out + (fifth ? 6 : 2));
}

// Q4_1 and Q5_1: from the smallest value in equal steps to the largest.
void encode_ranged(const float* x, int levels, std::byte* out) {
  float low = x[0];
  float high = x[0];
  for (int c = 1; c < kBlock; ++c) {
    if (x[c] < low) low = x[c];
    if (x[c] > high) high = x[c];
  }
  const float d = (high - low) / static_cast<float>(levels - 1);
  const float inverse = inverse_of(d);
  uint8_t q[kBlock];
  for (int c = 0; c < kBlock; ++c) q[c] = truncated((x[c] - low) * inverse + 0.5f, levels - 1);
  store(out, float_to_f16(d));
  store(out + 2, float_to_f16(low));
  const bool fifth = levels == 32;
  store_nibbles(q, fifth ? out + 4 : nullptr, out + (fifth ? 8 : 4));
}

// Q8_0: halves round away from zero.
void encode_bytes(const float* x, std::byte* out) {
  float largest = 0.0f;
  for (int c = 0; c < kBlock; ++c) largest = std::fmax(largest, std::fabs(x[c]));
  const float d = largest / 127.0f;
  const float inverse = inverse_of(d);
  store(out, float_to_f16(d));
  for (int c = 0; c < kBlock; ++c) {
    const float q = std::round(x[c] * inverse);
    // Within [-127, 127], but for steps whose inverse overflowed.
    store(out + 2 + c, std::fabs(q) <= 127.0f ? static_cast<int8_t>(q) : int8_t{0});
  }
}

void encode_block(DType type, const float* x, std::byte* out) {
  switch (type) {
    case DType::f32:
      return store(out, *x);
    case DType::f16:
      return store(out, float_to_f16(*x));
    case DType::bf16:
      return store(out, float_to_bf16(*x));
    case DType::q8_0:
      return encode_bytes(x, out);
    case DType::q4_0:
      return encode_scaled(x, 16, out);
    case DType::q5_0:
      return encode_scaled(x, 32, out);
    case DType::q4_1:
      return encode_ranged(x, 16, out);
    case DType::q5_1:
      return encode_ranged(x, 32, out);
    case DType::q4_k:
    case DType::q5_k:
      return encode_k45(type, x, out);
    case DType::q6_k:
      return encode_k6(x, out);
    case DType::int8:
      break;
  }
  CHECK(type != DType::int8);  // no tensor of a file has it
}

}  // namespace

void encode(DType type, std::span<const float> values, std::span<std::byte> out) {
  const auto count = static_cast<int64_t>(values.size());
  CHECK_EQ(static_cast<int64_t>(out.size()), row_bytes(type, count));
  const DTypeInfo& dtype = info(type);
  std::byte* at = out.data();
  for (int64_t i = 0; i < count; i += dtype.block_elements, at += dtype.block_bytes)
    encode_block(type, values.data() + i, at);
}

}  // namespace chainpump::models
