// Which type each tensor of a llama model takes under a name such as Q4_0 or Q4_K_M. The rules are
// the ones that GGUF files in the world are made by, so that a file made here is read, sized and
// compared like one made there:
//   - vectors and norms are F32;
//   - the output matrix, or the embedding where the model has no other: Q8_0 under Q8_0, else Q6_K
//     under every quantised name; Q8_0 where its rows do not fit the blocks of the name's own type;
//   - Q4_K_M: attn_v and ffn_down of the first and last eighth of the layers, and of each third
//     layer between, are Q6_K; attn_v of the 70B shape (80 layers, grouped queries) at least Q5_K;
//   - where rows do not fit blocks of 256: Q4_K becomes Q5_0, Q5_K Q5_1, Q6_K Q8_0; where they do
//     not fit 32 either, F16.
// Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "models/gguf/gguf.h"
#include "models/llama/config.h"

namespace chainpump::models {

struct Recipe {
  std::string_view name;  // as users write it: "Q4_K_M"
  DType type;             // of most tensors
  bool more_bits;         // where they pay most
  uint32_t file_type;     // the key general.file_type
};

/// All recipes, in the order of their listing.
std::span<const Recipe> recipes();
/// By name, in any case.
std::optional<Recipe> find_recipe(std::string_view name);

struct TensorChoice {
  DType type = DType::f32;
  DType wanted = DType::f32;  // differs from `type` where rows do not fit its blocks
};

/// One choice for each of file.tensors(). `config` is the file's.
std::vector<TensorChoice> choose_types(const GgufFile& file, const LlamaConfig& config,
                                       const Recipe& recipe);

}  // namespace chainpump::models
