// The tensors of a llama model, found by name in a GGUF file with their shapes checked against the
// hyperparameters. Holds pointers into the GgufFile, touches no weight. Immutable; any thread.
#pragma once

#include <span>
#include <vector>

#include "base/result.h"
#include "models/gguf/gguf.h"
#include "models/llama/config.h"

namespace chainpump::models {

/// A weight matrix and its bias, which few files of this architecture have.
struct ProjectionTensors {
  const GgufTensor* weight = nullptr;  // [rows, cols]
  const GgufTensor* bias = nullptr;    // [rows] or null
};

struct LayerTensors {
  const GgufTensor* attention_norm = nullptr;  // [hidden]
  ProjectionTensors q;                         // [q_size, hidden]
  ProjectionTensors k;                         // [kv_size, hidden]
  ProjectionTensors v;                         // [kv_size, hidden]
  ProjectionTensors o;                         // [hidden, q_size]
  const GgufTensor* ffn_norm = nullptr;        // [hidden]
  ProjectionTensors gate;                      // [feed_forward, hidden]
  ProjectionTensors up;                        // [feed_forward, hidden]
  ProjectionTensors down;                      // [hidden, feed_forward]

  /// Every tensor that is there, for adding up bytes.
  std::vector<const GgufTensor*> all() const;
};

struct LlamaTensors {
  const GgufTensor* embedding = nullptr;     // [vocabulary, hidden]
  const GgufTensor* output_norm = nullptr;   // [hidden]
  const GgufTensor* output = nullptr;        // [vocabulary, hidden]; the embedding if tied
  const GgufTensor* freq_factors = nullptr;  // [rotary_dim / 2] or null
  std::vector<LayerTensors> layers;          // [num_layers]

  bool tied_head() const { return output == embedding; }
};

/// bad_file naming the tensor that is missing or of the wrong shape or type; unimplemented naming a
/// tensor that this architecture does not know: ignoring a weight would change what the model says.
Result<LlamaTensors> find_llama_tensors(const GgufFile& file, const LlamaConfig& config);

/// A vector's elements; the tensor must be F32, as find_llama_tensors has checked.
std::vector<float> read_f32(const GgufTensor& tensor);

}  // namespace chainpump::models
