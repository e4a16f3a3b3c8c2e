// A stage executor without a model: each stage turns one number per token into the next, and the
// last reads its token from it. next_token() says what comes out. One thread.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "models/stage_executor.h"

namespace chainpump::fakes {

struct FakeStage {
  int32_t stage = 0;
  bool is_first = false;
  bool is_last = false;
  std::function<Status()> on_run;  // called by each run; its error is the run's
};

class FakeExecutor final : public models::StageExecutor {
 public:
  static constexpr int32_t kHidden = 4;
  static constexpr int32_t kVocabulary = 80;

  explicit FakeExecutor(FakeStage options) : options_(std::move(options)) {}

  /// What a chain of `num_stages` makes of `token` at `position`.
  static TokenId next_token(TokenId token, int32_t position, int32_t num_stages) {
    int32_t value = token * 7 + position * 13;
    for (int32_t stage = 0; stage < num_stages; ++stage) value = through(value, stage);
    return value % kVocabulary;
  }

  const std::vector<MicrobatchId>& seen() const { return seen_; }
  const std::vector<SequenceId>& released() const { return released_; }
  /// Positions, those that were held already among them.
  size_t num_computed() const { return num_computed_; }

  int32_t hidden_size() const override { return kHidden; }
  graph::MicrobatchLimits limits() const override {
    return {.max_tokens = 64,
            .max_sequences = 8,
            .context_tokens = 256,
            .num_kv_blocks = 64,
            .vocabulary_size = kVocabulary};
  }
  models::ExecutorStats stats() const override { return {}; }
  const models::SequenceTable& sequences() const override { return table_; }
  std::span<std::byte> kv_block(int32_t, KvBlockId) override { return {}; }
  Status take_over(std::span<const graph::StageHoldings::Held> sequences) override {
    return table_.take_over(sequences);
  }

  Status run(const graph::Microbatch& microbatch, std::span<const float> input,
             std::span<float> output, graph::StepResult& result) override {
    if (options_.on_run) RETURN_IF_ERROR(options_.on_run());
    RETURN_IF_ERROR(table_.check(microbatch));
    table_.apply(microbatch);
    seen_.push_back(microbatch.id);
    released_.insert(released_.end(), microbatch.released.begin(), microbatch.released.end());
    for (const SequenceId id : microbatch.released) held_.erase(id);
    for (const auto& descriptor : microbatch.descriptors) held_[descriptor.id] = descriptor;
    size_t row = 0;
    for (const graph::SequenceSlice& slice : microbatch.slices) {
      int32_t value = 0;
      num_computed_ += slice.tokens.size();
      for (size_t i = 0; i < slice.tokens.size(); ++i, ++row) {
        const int32_t position = slice.first_position + static_cast<int32_t>(i);
        value = options_.is_first ? slice.tokens[i] * 7 + position * 13
                                  : static_cast<int32_t>(input[row * kHidden]);
        value = through(value, options_.stage);
        if (!options_.is_last) output[row * kHidden] = static_cast<float>(value);
      }
      if (options_.is_last && slice.sample) result.tokens.push_back(sampled(slice, value));
    }
    return ok_status();
  }

 private:
  static int32_t through(int32_t value, int32_t stage) { return (value * 5 + stage) % 997; }

  graph::TokenResult sampled(const graph::SequenceSlice& slice, int32_t value) const {
    const graph::SequenceDescriptor& held = held_.at(slice.id);
    graph::TokenResult token;
    token.id = slice.id;
    token.position = slice.first_position + static_cast<int32_t>(slice.tokens.size());
    token.token = value % kVocabulary;
    const auto made = token.position - static_cast<int32_t>(held.prompt.size()) + 1;
    if (made == held.sampling.max_new_tokens) token.finish = graph::FinishReason::length;
    return token;
  }

  FakeStage options_;
  models::SequenceTable table_{limits()};
  std::vector<MicrobatchId> seen_;
  std::vector<SequenceId> released_;
  size_t num_computed_ = 0;
  std::map<SequenceId, graph::SequenceDescriptor> held_;
};

}  // namespace chainpump::fakes
