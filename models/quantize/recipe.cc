#include "models/quantize/recipe.h"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace chainpump::models {
namespace {

// File types: the list beside general.file_type in the GGUF document (llama.cpp's llama_ftype).
constexpr Recipe kRecipes[] = {
    {"F32", DType::f32, false, 0},    {"F16", DType::f16, false, 1},
    {"BF16", DType::bf16, false, 32}, {"Q8_0", DType::q8_0, false, 7},
    {"Q4_0", DType::q4_0, false, 2},  {"Q4_1", DType::q4_1, false, 3},
    {"Q5_0", DType::q5_0, false, 8},  {"Q5_1", DType::q5_1, false, 9},
    {"Q4_K", DType::q4_k, false, 14}, {"Q5_K", DType::q5_k, false, 16},
    {"Q6_K", DType::q6_k, false, 18}, {"Q4_K_M", DType::q4_k, true, 15},
};

bool is_quantised(DType type) { return info(type).block_elements > 1; }

bool fits(const GgufTensor& tensor, DType type) {
  return tensor.cols() % info(type).block_elements == 0;
}

bool is_matrix(const GgufTensor& tensor) {
  return tensor.dims.size() > 1 && tensor.name.ends_with("weight") &&
         !tensor.name.ends_with("_norm.weight");
}

// The n of blk.n.REST, or -1 if the name is none of `rest`.
int layer_of(std::string_view name, std::string_view rest) {
  constexpr std::string_view kBlock = "blk.";
  if (!name.starts_with(kBlock) || !name.ends_with(rest)) return -1;
  name.remove_prefix(kBlock.size());
  int layer = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  const bool whole =
      error == std::errc() && std::string_view(end, name.data() + name.size()) == rest;
  return whole ? layer : -1;
}

bool is_sensitive(int layer, int num_layers) {
  const int eighth = num_layers / 8;
  return layer < eighth || layer >= 7 * num_layers / 8 || (layer - eighth) % 3 == 2;
}

DType output_type(const GgufTensor& tensor, DType type) {
  return type == DType::q8_0 || !fits(tensor, type) ? DType::q8_0 : DType::q6_k;
}

DType more_bits_type(std::string_view name, const LlamaConfig& config, DType type) {
  const int v = layer_of(name, ".attn_v.weight");
  const int down = layer_of(name, ".ffn_down.weight");
  if ((v >= 0 && is_sensitive(v, config.num_layers)) ||
      (down >= 0 && is_sensitive(down, config.num_layers)))
    return DType::q6_k;
  return type;
}

DType layer_type(const GgufTensor& tensor, const LlamaConfig& config, const Recipe& recipe) {
  const DType type =
      recipe.more_bits ? more_bits_type(tensor.name, config, recipe.type) : recipe.type;
  const bool is_70b = config.num_layers == 80 && config.num_heads != config.num_kv_heads;
  if (is_70b && type == DType::q4_k && layer_of(tensor.name, ".attn_v.weight") >= 0)
    return DType::q5_k;
  return type;
}

DType fallback(const GgufTensor& tensor, DType wanted) {
  if (fits(tensor, wanted)) return wanted;
  const DType smaller = wanted == DType::q4_k   ? DType::q5_0
                        : wanted == DType::q5_k ? DType::q5_1
                        : wanted == DType::q6_k ? DType::q8_0
                                                : wanted;
  return fits(tensor, smaller) ? smaller : DType::f16;
}

}  // namespace

std::span<const Recipe> recipes() { return kRecipes; }

std::optional<Recipe> find_recipe(std::string_view name) {
  const auto equal = [](char a, char b) {
    return std::toupper(static_cast<unsigned char>(a)) ==
           std::toupper(static_cast<unsigned char>(b));
  };
  for (const Recipe& recipe : kRecipes)
    if (std::equal(name.begin(), name.end(), recipe.name.begin(), recipe.name.end(), equal))
      return recipe;
  return std::nullopt;
}

std::vector<TensorChoice> choose_types(const GgufFile& file, const LlamaConfig& config,
                                       const Recipe& recipe) {
  const std::string_view output =
      file.find_tensor("output.weight") != nullptr ? "output.weight" : "token_embd.weight";
  std::vector<TensorChoice> choices;
  for (const GgufTensor& tensor : file.tensors()) {
    TensorChoice& choice = choices.emplace_back();
    if (!is_matrix(tensor)) continue;
    choice.wanted = !is_quantised(recipe.type) ? recipe.type
                    : tensor.name == output    ? output_type(tensor, recipe.type)
                                               : layer_type(tensor, config, recipe);
    choice.type = fallback(tensor, choice.wanted);
  }
  return choices;
}

}  // namespace chainpump::models
