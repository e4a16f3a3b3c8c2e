// Sleeping stages brought to life: a plan made by hand, a runtime, requests, and what they were
// given per second. For `bench pipeline`. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "actors/runtime.h"
#include "base/result.h"
#include "graph/plan.h"
#include "models/sleep/sleep_model.h"

namespace chainpump::cli {

struct PipelineCase {
  std::vector<models::SleepLayer> stages;  // a layer each
  bool as_processes = false;               // over TCP; else threads of this process over loopback
  int32_t num_requests = 1;                // at once
  int32_t prompt_tokens = 16;
  int32_t new_tokens = 1;
  int32_t chunk_tokens = 0;  // of prefill; 0: the scheduler's own choice
  int32_t max_microbatch_tokens = 0;
  int32_t max_microbatches = 1;
};

/// With as many KV blocks as all of its requests take.
graph::Plan pipeline_plan(const PipelineCase& c);

/// Of the time in which every request decodes: from when each has had a fifth of its tokens until
/// the first has had all.
struct DecodeFigures {
  double tokens_per_s = 0;
  double tokens_per_microbatch = 0;
  /// Where the busiest stage's time went, as shares of all it accounts for.
  double busy = 0;
  double transfer = 0;
  double wait_input = 0;
  double wait_credit = 0;
};

class PipelineRun {
 public:
  /// Ready for requests.
  static Result<PipelineRun> start(const PipelineCase& c);
  PipelineRun(PipelineRun&&) = default;
  PipelineRun& operator=(PipelineRun&&) = delete;
  ~PipelineRun();

  /// All requests of the case, to their end.
  Result<DecodeFigures> decode();
  /// One prompt, unlike those before it: from its submit to its first token.
  Result<double> prompt_seconds();

 private:
  class Progress;
  PipelineRun(const PipelineCase& c, std::unique_ptr<actors::Runtime> runtime)
      : case_(c), runtime_(std::move(runtime)) {}
  std::shared_ptr<Progress> submit(int32_t num_requests, int32_t new_tokens);

  PipelineCase case_;
  std::unique_ptr<actors::Runtime> runtime_;
  int32_t num_prompts_ = 0;  // so far
};

}  // namespace chainpump::cli
