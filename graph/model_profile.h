// What planning needs to know of a model, read from a weights file's header without touching a
// weight. Filled by models/; graph/ does not know file formats. Plain data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace chainpump::graph {

/// Bytes by element type: what one part of the model reads per token.
struct WeightBytes {
  int64_t total = 0;
  std::vector<std::pair<DType, int64_t>> by_type;
};

struct ModelProfile {
  std::string architecture;  // "llama"
  std::string name;
  int32_t num_layers = 0;
  int32_t hidden_size = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t feed_forward_size = 0;
  int32_t vocabulary_size = 0;
  int32_t context_tokens = 0;  // as trained
  bool tied_head = false;      // then embedding and head are one tensor, read by both ends
  WeightBytes embedding;
  std::vector<WeightBytes> layers;  // [num_layers]
  WeightBytes head;                 // output norm and projection
};

}  // namespace chainpump::graph
