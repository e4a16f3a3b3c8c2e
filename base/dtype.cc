#include "base/dtype.h"

#include <array>

#include "base/check.h"

namespace chainpump {
namespace {
constexpr std::array<DTypeInfo, kNumDTypes> kInfos = {{
    {DType::f32, "f32", 1, 4, 0},
    {DType::f16, "f16", 1, 2, 1},
    {DType::bf16, "bf16", 1, 2, 30},
    {DType::q8_0, "q8_0", 32, 34, 8},
    {DType::q4_0, "q4_0", 32, 18, 2},
    {DType::q4_1, "q4_1", 32, 20, 3},
    {DType::q5_0, "q5_0", 32, 22, 6},
    {DType::q5_1, "q5_1", 32, 24, 7},
    {DType::q4_k, "q4_k", 256, 144, 12},
    {DType::q5_k, "q5_k", 256, 176, 13},
    {DType::q6_k, "q6_k", 256, 210, 14},
    {DType::int8, "int8", 1, 1, kNoGgufType},  // KV only; its scales lie beside (base/kv_layout.h)
}};
}  // namespace

const DTypeInfo& info(DType type) {
  const auto index = static_cast<size_t>(type);
  CHECK_LT(index, kInfos.size());
  return kInfos[index];
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DTypeInfo& entry : kInfos)
    if (entry.name == name) return entry.type;
  return std::nullopt;
}

std::optional<DType> dtype_from_gguf(uint32_t gguf_type) {
  for (const DTypeInfo& entry : kInfos)
    if (entry.gguf_type == gguf_type && gguf_type != kNoGgufType) return entry.type;
  return std::nullopt;
}

int64_t row_bytes(DType type, int64_t cols) {
  const DTypeInfo& entry = info(type);
  CHECK_EQ(cols % entry.block_elements, 0);
  return cols / entry.block_elements * entry.block_bytes;
}

}  // namespace chainpump
