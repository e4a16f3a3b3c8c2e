#include "models/llama/tensors.h"

#include <cstring>
#include <optional>
#include <set>
#include <string>

namespace chainpump::models {
namespace {

/// Looks tensors up, checks them, and remembers which were asked for and the first error.
class TensorFinder {
 public:
  explicit TensorFinder(const GgufFile& file) : file_(file) {}

  const GgufTensor* optional_vector(const std::string& name, int64_t size) {
    const GgufTensor* tensor = find(name);
    if (tensor == nullptr) return nullptr;
    if (tensor->dims.size() != 1 || tensor->dims[0] != size) {
      fail(name, fmt::format("has shape [{}], expected [{}]", fmt::join(tensor->dims, ", "), size));
    } else if (tensor->type != DType::f32) {
      fail(name, fmt::format("has type {}, expected f32", to_string(tensor->type)));
    }
    return tensor;
  }
  const GgufTensor* vector(const std::string& name, int64_t size) {
    const GgufTensor* tensor = optional_vector(name, size);
    if (tensor == nullptr) fail(name, "is missing");
    return tensor;
  }
  const GgufTensor* optional_matrix(const std::string& name, int64_t rows, int64_t cols) {
    const GgufTensor* tensor = find(name);
    if (tensor == nullptr) return nullptr;
    if (tensor->dims.size() != 2 || tensor->dims[0] != cols || tensor->dims[1] != rows) {
      fail(name, fmt::format("has shape [{}], expected [{}, {}] (row length first)",
                             fmt::join(tensor->dims, ", "), cols, rows));
    }
    return tensor;
  }
  const GgufTensor* matrix(const std::string& name, int64_t rows, int64_t cols) {
    const GgufTensor* tensor = optional_matrix(name, rows, cols);
    if (tensor == nullptr) fail(name, "is missing");
    return tensor;
  }
  ProjectionTensors projection(const std::string& name, int64_t rows, int64_t cols) {
    return {matrix(name + ".weight", rows, cols), optional_vector(name + ".bias", rows)};
  }
  Status finish() const {
    if (error_) return *error_;
    for (const GgufTensor& tensor : file_.tensors()) {
      if (!known_.contains(tensor.name)) {
        return make_error(ErrorCode::unimplemented,
                          "tensor {} is not one that the llama architecture here knows",
                          tensor.name);
      }
    }
    return ok_status();
  }

 private:
  const GgufTensor* find(const std::string& name) {
    const GgufTensor* tensor = file_.find_tensor(name);
    if (tensor != nullptr) known_.insert(tensor->name);
    return tensor;
  }
  void fail(const std::string& name, const std::string& what) {
    if (!error_) error_ = make_error(ErrorCode::bad_file, "tensor {} {}", name, what);
  }

  const GgufFile& file_;
  std::set<std::string_view> known_;
  std::optional<Error> error_;
};

LayerTensors find_layer(TensorFinder& finder, const LlamaConfig& config, int32_t layer) {
  const std::string prefix = fmt::format("blk.{}.", layer);
  const int64_t hidden = config.hidden_size;
  LayerTensors found;
  found.attention_norm = finder.vector(prefix + "attn_norm.weight", hidden);
  found.q = finder.projection(prefix + "attn_q", config.q_size(), hidden);
  found.k = finder.projection(prefix + "attn_k", config.kv_size(), hidden);
  found.v = finder.projection(prefix + "attn_v", config.kv_size(), hidden);
  found.o = finder.projection(prefix + "attn_output", hidden, config.q_size());
  found.ffn_norm = finder.vector(prefix + "ffn_norm.weight", hidden);
  found.gate = finder.projection(prefix + "ffn_gate", config.feed_forward_size, hidden);
  found.up = finder.projection(prefix + "ffn_up", config.feed_forward_size, hidden);
  found.down = finder.projection(prefix + "ffn_down", hidden, config.feed_forward_size);
  return found;
}

/// A factor of zero or NaN would make every angle meaningless.
Status check_freq_factors(const GgufTensor* tensor) {
  if (tensor == nullptr) return ok_status();
  for (const float factor : read_f32(*tensor)) {
    if (!(factor > 0.0f && factor < 1e9f)) {
      return make_error(ErrorCode::bad_file, "tensor {} holds the factor {}", tensor->name, factor);
    }
  }
  return ok_status();
}

}  // namespace

std::vector<const GgufTensor*> LayerTensors::all() const {
  std::vector<const GgufTensor*> list = {attention_norm, ffn_norm};
  for (const ProjectionTensors* p : {&q, &k, &v, &o, &gate, &up, &down}) {
    list.push_back(p->weight);
    if (p->bias != nullptr) list.push_back(p->bias);
  }
  return list;
}

Result<LlamaTensors> find_llama_tensors(const GgufFile& file, const LlamaConfig& config) {
  // A layer has 9 tensors at least; a lying count is found out before anything is sized by it.
  if (static_cast<size_t>(config.num_layers) > file.tensors().size()) {
    return make_error(ErrorCode::bad_file, "key llama.block_count is {}, but there are {} tensors",
                      config.num_layers, file.tensors().size());
  }
  TensorFinder finder(file);
  LlamaTensors found;
  found.embedding = finder.matrix("token_embd.weight", config.vocabulary_size, config.hidden_size);
  found.output_norm = finder.vector("output_norm.weight", config.hidden_size);
  found.output =
      finder.optional_matrix("output.weight", config.vocabulary_size, config.hidden_size);
  if (found.output == nullptr) found.output = found.embedding;
  found.freq_factors = finder.optional_vector("rope_freqs.weight", config.rope.rotary_dim / 2);
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    found.layers.push_back(find_layer(finder, config, layer));
  }
  RETURN_IF_ERROR(finder.finish());
  RETURN_IF_ERROR(check_freq_factors(found.freq_factors));
  return found;
}

std::vector<float> read_f32(const GgufTensor& tensor) {
  CHECK(tensor.type == DType::f32);
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), values.size() * sizeof(float));
  return values;
}

}  // namespace chainpump::models
