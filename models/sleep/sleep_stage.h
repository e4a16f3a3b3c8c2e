// A stage that sleeps (models/sleep/sleep_model.h): what the engine round it does can then be
// measured exactly, many stages on few cores, because sleeping takes none.
//
// It sleeps until absolute deadlines: a step begins when run() is called or when the step before
// was due, whichever is later; by how much the system woke this thread too late is not counted
// against the next step, as a device would have been done in time. It asks to be woken as much
// earlier as it was late before, a tenth of a millisecond at most, and spins until it is time.
//
// It is as strict as a stage with weights: block tables are checked, a sequence's tokens must be
// those that its descriptor and its samples say, and each row must carry the mark that the stage
// before gave that token at that position. One thread, the one that made it.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "models/sequence_table.h"
#include "models/sleep/sleep_model.h"
#include "models/stage_executor.h"

namespace chainpump::models {

class SleepStage final : public StageExecutor {
 public:
  /// The layers of `spec` out of those that `path` describes. invalid_argument.
  static Result<std::unique_ptr<StageExecutor>> load(const std::string& path,
                                                     const StageSpec& spec);

  int32_t hidden_size() const override { return kSleepHidden; }
  graph::MicrobatchLimits limits() const override { return limits_; }
  ExecutorStats stats() const override;
  const SequenceTable& sequences() const override { return table_; }
  std::span<std::byte> kv_block(int32_t, KvBlockId) override { return {}; }
  Status take_over(std::span<const graph::StageHoldings::Held> sequences) override {
    return table_.take_over(sequences);
  }
  /// As every executor, and unimplemented for scoring.
  Status run(const graph::Microbatch& microbatch, std::span<const float> input,
             std::span<float> output, graph::StepResult& result) override;

 private:
  struct Sequence {
    std::vector<TokenId> tokens;
    size_t num_prompt = 0;
    int32_t max_new_tokens = 0;
    SleepHash hash;  // of all tokens
  };

  SleepStage(std::vector<SleepLayer> layers, const StageSpec& spec);

  Status check(const graph::Microbatch& microbatch, std::span<const float> input,
               std::span<const float> output);
  Status check_tokens(const graph::SequenceSlice& slice, std::span<const TokenId> known) const;
  void describe(const graph::SequenceDescriptor& descriptor);
  graph::TokenResult sample(const graph::SequenceSlice& slice, Sequence& sequence) const;
  void sleep(Duration duration);

  std::vector<SleepLayer> layers_;
  bool is_first_;
  bool is_last_;
  graph::MicrobatchLimits limits_;
  SequenceTable table_;
  std::unordered_map<SequenceId, Sequence> sequences_;
  TimePoint deadline_;     // of the last step
  Duration overslept_{0};  // then
  Duration early_{0};      // that it asks to be woken before a deadline
};

}  // namespace chainpump::models
