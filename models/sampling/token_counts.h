// Which tokens a sequence has had and how often, for the penalties. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "graph/sampling_params.h"

namespace chainpump::models {

class TokenCounts {
 public:
  void add_prompt(TokenId token) { entry(token); }
  void add_output(TokenId token) { ++entry(token).in_output; }

  /// Repetition penalty (Keskar et al., "CTRL", 2019, as in transformers): logits of tokens in
  /// prompt or output are divided by it if positive, else multiplied. Then, as the OpenAI API
  /// documents, frequency_penalty times the count in the output and presence_penalty once are
  /// subtracted.
  void penalize(const graph::SamplingParams& params, std::span<float> logits) const;

 private:
  struct Entry {
    TokenId token;
    int32_t in_output = 0;
  };
  Entry& entry(TokenId token);

  std::vector<Entry> entries_;  // in order of first appearance
  std::unordered_map<TokenId, size_t> index_;
};

}  // namespace chainpump::models
