// The hyperparameters of a llama model, read from a GGUF file's metadata and checked: every number
// is bounded here once, so that no later code has to fear overflow or a division by zero.
// Names and meaning of the keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
// Plain data; any thread. Knows nothing of tensors (models/llama/tensors.h).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "models/gguf/gguf.h"

namespace chainpump::models {

enum class RopeScalingKind : uint8_t { none, linear, yarn };

struct RopeConfig {
  double base = 10000.0;
  int32_t rotary_dim = 0;  // even, at most head_dim
  RopeScalingKind scaling = RopeScalingKind::none;
  double factor = 1.0;           // context extension, >= 1 in practice
  int32_t original_context = 0;  // tokens, before extension
  double attention_factor = 1.0;
  double yarn_log_multiplier = 0.0;
  double yarn_ext_factor = 1.0;
  double yarn_beta_fast = 32.0;
  double yarn_beta_slow = 1.0;
};

struct LlamaConfig {
  std::string name;
  int32_t num_layers = 0;
  int32_t hidden_size = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t feed_forward_size = 0;
  int32_t vocabulary_size = 0;
  int32_t context_tokens = 0;  // as trained
  float rms_epsilon = 0.0f;
  RopeConfig rope;

  int32_t q_size() const { return num_heads * head_dim; }
  int32_t kv_size() const { return num_kv_heads * head_dim; }
};

/// bad_file naming the key that is missing, of the wrong kind or out of bounds; unimplemented for
/// another architecture, experts, or an unknown kind of RoPE scaling.
Result<LlamaConfig> read_llama_config(const GgufFile& file);

/// What the rope kernel wants.
struct RopeTable {
  std::vector<float> inverse_frequencies;  // [rotary_dim / 2]
  float magnitude = 1.0f;
};

/// Angles per position with the scaling applied. `freq_factors` is the `rope_freqs.weight` tensor
/// (llama 3's scaling: each frequency is divided by its factor), [rotary_dim / 2] or empty.
/// YaRN: Peng et al., arXiv 2309.00071, with the correction range rounded outwards and the
/// attention factor 0.1 ln(factor) + 1, as the GGUF ecosystem computes it.
RopeTable make_rope_table(const RopeConfig& config, std::span<const float> freq_factors);

}  // namespace chainpump::models
