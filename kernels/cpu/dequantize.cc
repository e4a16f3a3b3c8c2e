#include <cstring>

#include "base/check.h"
#include "base/half.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/quant_block.h"

namespace chainpump::kernels::cpu {
namespace {

void dequantize_block(const QuantTraits& traits, const QuantBlock& block, float* out) {
  const float d = f16_to_float(block.d);
  const float m = f16_to_float(block.m);
  for (int c = 0; c < kBlockCols; ++c) {
    const auto q = static_cast<int>(block.groups[c / 4] >> (8 * (c % 4)) & 0xff);
    switch (traits.scale_kind) {
      case ScaleKind::scale:
        out[c] = static_cast<float>(q - (1 << traits.offset_shift)) * d;
        break;
      case ScaleKind::scale_min:
        out[c] = static_cast<float>(q) * d + m;
        break;
      case ScaleKind::k_min:
        out[c] = d * static_cast<float>(block.sc) * static_cast<float>(q) -
                 m * static_cast<float>(block.mn);
        break;
      case ScaleKind::k6: {
        const auto sc = static_cast<int8_t>(c < 16 ? block.sc : block.mn);
        out[c] = d * static_cast<float>(sc) * static_cast<float>(q - (1 << traits.offset_shift));
        break;
      }
    }
  }
}

}  // namespace

void dequantize_row(DType type, std::span<const std::byte> raw_row, std::span<float> out) {
  const auto cols = static_cast<int64_t>(out.size());
  CHECK_EQ(static_cast<int64_t>(raw_row.size()), row_bytes(type, cols));
  const std::byte* raw = raw_row.data();
  switch (type) {
    case DType::f32:
      std::memcpy(out.data(), raw, raw_row.size());
      return;
    case DType::f16:
    case DType::bf16:
      for (size_t c = 0; c < out.size(); ++c) {
        const auto bits = quant_detail::load<uint16_t>(raw + 2 * c);
        out[c] = type == DType::f16 ? f16_to_float(bits) : bf16_to_float(bits);
      }
      return;
    case DType::q8_0:
    case DType::q4_0:
    case DType::q4_1:
    case DType::q5_0:
    case DType::q5_1:
    case DType::q4_k:
    case DType::q5_k:
    case DType::q6_k:
      break;
    case DType::int8:
      CHECK(type != DType::int8);  // no weight has it
  }
  const QuantTraits traits = quant_traits(type);
  QuantBlock block;
  for (int64_t b = 0; b < cols / kBlockCols; ++b) {
    decode_block(type, raw, b, &block);
    dequantize_block(traits, block, out.data() + b * kBlockCols);
  }
}

}  // namespace chainpump::kernels::cpu
