// One run of sleeping stages: a plan made by hand, brought to life, given requests, measured from
// the first submit to the last token. For `bench pipeline`. One thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "models/sleep/sleep_model.h"

namespace chainpump::cli {

struct PipelineCase {
  std::vector<models::SleepLayer> stages;  // a layer each
  bool as_processes = false;               // over TCP; else threads of this process over loopback
  int32_t num_requests = 1;
  int32_t prompt_tokens = 16;
  int32_t new_tokens = 1;
  int32_t chunk_tokens = 0;  // of prefill; 0: the scheduler's own choice
  int32_t max_microbatch_tokens = 0;
  int32_t max_microbatches = 1;
};

struct PipelineOutcome {
  double seconds = 0;
  uint64_t num_microbatches = 0;
  uint64_t num_tokens = 0;  // generated
  /// Where the busiest stage's time went, as shares of all it accounts for.
  double busy = 0;
  double transfer = 0;
  double wait_input = 0;
  double wait_credit = 0;
};

Result<PipelineOutcome> run_pipeline_case(const PipelineCase& c);

}  // namespace chainpump::cli
