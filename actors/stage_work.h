// What one stage does with one microbatch of one lane: runs it, or, where only some stages of the
// chain compute it (graph/microbatch.h, StageSpan), forgets and copies what it says and no more.
// The stage before the first that computes sends rows again that it has logged; so every stage but
// the last logs what it sends on.
//
// Rows come in where the stage computes, and go out where the stage after it does.
//
// Thread rule: one thread, the executor's.
#pragma once

#include <span>
#include <unordered_map>

#include "graph/lane_fill.h"
#include "graph/replay_log.h"
#include "models/stage_executor.h"
#include "transport/armed_fault.h"

namespace chainpump::actors {

struct StageWorkOptions {
  uint8_t lane = 0;
  StageIndex stage;
  bool is_first = false;
  bool is_last = false;
  int32_t first_kv_block = 0;  // of the lane among the executor's
  int64_t replay_log_bytes = 0;
  transport::ArmedFault* fault = nullptr;  // what the rank may have been told to do; outlives this
};

class StageWork {
 public:
  /// The executor outlives this.
  StageWork(const StageWorkOptions& options, models::StageExecutor& executor);

  /// `input`: the rows that came. `room`: where rows for the stage after it may be written,
  /// num_tokens * hidden_size floats or more; empty at the last. The microbatch's blocks are within
  /// the executor's limits, as its decoder sees to. Returns how many floats of it go
  /// out. invalid_argument, or internal, if the microbatch makes no sense here.
  Result<int64_t> run(const graph::Microbatch& microbatch, std::span<const float> input,
                      std::span<float> room, graph::StepResult& result);

  /// Positions that were computed again.
  struct Again {
    uint64_t held = 0;     // their KV was there: only for the stages after this one
    uint64_t rebuilt = 0;  // it was not: what somebody had lost
  };
  const Again& again() const { return again_; }
  /// Work is about to be interrupted; what comes after that and was never computed here is new.
  void note_fence() { is_successor_ = false; }

  /// What is held and logged of the lane, when no microbatch is under way.
  graph::StageHoldings holdings() const;

 private:
  int64_t rows_floats(const graph::Microbatch& microbatch) const;
  Result<int64_t> pass(const graph::Microbatch& microbatch, std::span<float> room,
                       graph::StepResult& result);
  Status repeat(const graph::Microbatch& microbatch, std::span<float> room) const;
  void log(const graph::Microbatch& microbatch, std::span<const float> rows);
  void note_known(const graph::Microbatch& microbatch);
  void count_again(const graph::Microbatch& microbatch);

  StageWorkOptions options_;
  models::StageExecutor& executor_;
  graph::ReplayLog log_;
  Again again_;
  // What only some stages are to compute is, until the first fence, what one before this had.
  bool is_successor_ = true;
  // Of sequences that had tokens of their own when they were described: how many positions were
  // computed before that.
  std::unordered_map<SequenceId, int32_t> known_;
};

}  // namespace chainpump::actors
