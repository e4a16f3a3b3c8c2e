// A whole model as stages chained in one process, activations passed by hand: what executor tests
// and the executor bench drive. Allots KV blocks itself, in a scattered order, so that tables
// matter. One thread. No links, no scheduling: those have tests of their own.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "models/stage_executor.h"

namespace chainpump::fakes {

struct ChainOptions {
  int32_t num_stages = 1;
  int32_t num_layers = 0;  // of the model
  models::StageSpec spec;  // what all stages share: threads, KV type, limits
};

/// One sequence's next tokens; `sample` as in graph::SequenceSlice.
struct Feed {
  SequenceId id;
  std::vector<TokenId> tokens;
  bool sample = false;
};

class StageChain {
 public:
  static Result<StageChain> load(const std::string& model_path, const ChainOptions& options);

  /// Makes `descriptor` part of the next microbatch.
  void begin(const graph::SequenceDescriptor& descriptor);
  void release(SequenceId id);
  /// Runs one microbatch through all stages.
  Result<graph::StepResult> run(const std::vector<Feed>& feeds);
  /// The same with a microbatch made by the caller (first stage's output goes on).
  Result<graph::StepResult> run_raw(const graph::Microbatch& microbatch);

  /// Prompt in chunks of `chunk` tokens (0: whole), then decodes until the sampler ends it.
  Result<std::vector<graph::TokenResult>> generate(const graph::SequenceDescriptor& descriptor,
                                                   int32_t chunk);
  /// The prompt in chunks; the scores of all its positions.
  Result<std::vector<graph::ScoreResult>> score(const graph::SequenceDescriptor& descriptor,
                                                int32_t chunk);

  models::StageExecutor& stage(size_t index) { return *stages_[index]; }
  size_t num_stages() const { return stages_.size(); }

 private:
  struct Held {
    int32_t num_tokens = 0;
    std::vector<KvBlockId> blocks;
  };
  KvBlockId take_block();

  std::vector<std::unique_ptr<models::StageExecutor>> stages_;
  std::map<SequenceId, Held> held_;
  std::vector<KvBlockId> free_blocks_;
  graph::Microbatch next_;
  std::vector<float> activations_[2];
};

/// Ordinary tokens of the tiny models, others for each salt.
std::vector<TokenId> prompt_of(int32_t count, int32_t salt);

}  // namespace chainpump::fakes
