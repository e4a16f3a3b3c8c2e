#include "models/llama/profile.h"

#include <algorithm>
#include <vector>

#include "models/llama/config.h"
#include "models/llama/tensors.h"

namespace chainpump::models {
namespace {

graph::WeightBytes add_up(const std::vector<const GgufTensor*>& tensors) {
  graph::WeightBytes sum;
  for (const GgufTensor* tensor : tensors) {
    const auto bytes = static_cast<int64_t>(tensor->bytes.size());
    sum.total += bytes;
    const auto same = std::find_if(sum.by_type.begin(), sum.by_type.end(),
                                   [&](const auto& entry) { return entry.first == tensor->type; });
    if (same == sum.by_type.end()) {
      sum.by_type.emplace_back(tensor->type, bytes);
    } else {
      same->second += bytes;
    }
  }
  return sum;
}

}  // namespace

Result<graph::ModelProfile> read_profile(const GgufFile& file) {
  ASSIGN_OR_RETURN(const LlamaConfig config, read_llama_config(file));
  ASSIGN_OR_RETURN(const LlamaTensors tensors, find_llama_tensors(file, config));
  graph::ModelProfile profile;
  profile.architecture = "llama";
  profile.name = config.name;
  profile.num_layers = config.num_layers;
  profile.hidden_size = config.hidden_size;
  profile.num_heads = config.num_heads;
  profile.num_kv_heads = config.num_kv_heads;
  profile.head_dim = config.head_dim;
  profile.feed_forward_size = config.feed_forward_size;
  profile.vocabulary_size = config.vocabulary_size;
  profile.context_tokens = config.context_tokens;
  profile.tied_head = tensors.tied_head();
  profile.embedding = add_up({tensors.embedding});
  for (const LayerTensors& layer : tensors.layers) profile.layers.push_back(add_up(layer.all()));
  profile.head = add_up({tensors.output_norm, tensors.output});
  return profile;
}

}  // namespace chainpump::models
