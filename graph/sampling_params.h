// What a client may ask of sampling. Plain data; checked once, at admission (validate), and again
// wherever it arrives from the wire.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace chainpump::graph {

inline constexpr float kMaxTemperature = 100.0f;
inline constexpr int32_t kMaxTopLogprobs = 20;
inline constexpr size_t kMaxLogitBiases = 1024;
inline constexpr size_t kMaxStopStrings = 64;
inline constexpr size_t kMaxStopBytes = 1024;  // of one stop string
inline constexpr size_t kMaxStopTokens = 1024;

struct SamplingParams {
  float temperature = 0.0f;                           // [0, 100]; 0: greedy
  float top_p = 1.0f;                                 // (0, 1]
  float min_p = 0.0f;                                 // [0, 1)
  int32_t top_k = 0;                                  // 0: off
  float repetition_penalty = 1.0f;                    // [0.01, 100]; over prompt and output
  float presence_penalty = 0.0f;                      // [-2, 2]; over output
  float frequency_penalty = 0.0f;                     // [-2, 2]; over output
  std::vector<std::pair<TokenId, float>> logit_bias;  // each token once; [-100, 100]
  uint64_t seed = 0;
  int32_t max_new_tokens = 128;  // at least 1
  bool ignore_eos = false;
  std::vector<std::string> stop;        // text ends before the first of these; none empty
  std::vector<TokenId> stop_token_ids;  // beside the model's own end tokens
  int32_t num_top_logprobs = -1;        // -1: none; 0: the chosen token's only; at most 20

  bool operator==(const SamplingParams&) const = default;
};

/// invalid_argument naming the parameter and its bounds.
Status validate(const SamplingParams& params, int32_t vocabulary_size);

}  // namespace chainpump::graph
