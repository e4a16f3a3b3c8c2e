// What the microbatch tests share: limits, and one of each with every list filled. One thread.
#pragma once

#include <string>
#include <vector>

#include "graph/microbatch.h"

namespace chainpump::graph {

inline constexpr MicrobatchLimits kLimits{.max_tokens = 64,
                                          .max_sequences = 8,
                                          .context_tokens = 128,
                                          .num_kv_blocks = 32,
                                          .vocabulary_size = 1000};

using Bytes = std::vector<std::byte>;

template <typename T>
Bytes encoded(const T& value) {
  Bytes out;
  encode(value, out);
  return out;
}

/// A microbatch with every list filled, small enough to cut at each byte.
inline Microbatch sample_microbatch() {
  Microbatch m;
  m.id = MicrobatchId(3);
  m.slowest = Duration(2'000'000);
  m.slowest_stage = StageIndex(1);
  m.released = {SequenceId(1), SequenceId(2)};
  m.copies = {{KvBlockId(4), KvBlockId(9)}, {KvBlockId(9), KvBlockId(31)}};
  SequenceDescriptor d;
  d.id = SequenceId(5);
  d.sampling.logit_bias = {{3, 1.5f}};
  d.sampling.stop = {"end", "\n\n"};
  d.sampling.stop_token_ids = {7};
  d.score.full_path = "all.npy";
  d.prompt = {1, 2, 3};
  d.generated = {4};
  m.descriptors = {d};
  m.slices = {{SequenceId(5), 0, {1, 2, 3, 4}, 0, {KvBlockId(9)}, true}};
  return m;
}

inline StepResult sample_step_result() {
  StepResult r;
  r.id = MicrobatchId(3);
  r.tokens = {{SequenceId(5), 4, 8, -0.5f, {{8, -0.5f}, {9, -1.5f}}, FinishReason::stop, 12}};
  r.scores = {{SequenceId(6), 1, -2.0f, 3}};
  return r;
}

inline bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace chainpump::graph
