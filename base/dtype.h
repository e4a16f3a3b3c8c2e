// Element types of weights, KV and activations. Block formats follow GGML's layouts (their byte
// layout is described where they are read, kernels/cpu/blocks.h). Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace chainpump {

enum class DType : uint8_t { f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k, int8 };
inline constexpr int kNumDTypes = 12;
/// For a type that no tensor of a file has.
inline constexpr uint32_t kNoGgufType = UINT32_MAX;

struct DTypeInfo {
  DType type;
  std::string_view name;  // as users write it: "q4_1"
  int block_elements;     // elements of one row that are coded together
  int block_bytes;
  uint32_t gguf_type;  // the number in a GGUF tensor record (ggml_type), or kNoGgufType
};

const DTypeInfo& info(DType type);
inline std::string_view to_string(DType type) { return info(type).name; }
std::optional<DType> dtype_from_name(std::string_view name);
std::optional<DType> dtype_from_gguf(uint32_t gguf_type);

/// Bytes of one row of `cols` elements; `cols` must be a multiple of the block's elements.
int64_t row_bytes(DType type, int64_t cols);

}  // namespace chainpump
