// Steps of all stages as one file that Perfetto (ui.perfetto.dev) and chrome://tracing open.
// Format: the Trace Event Format, JSON; times in microseconds. Each rank is a process with two
// rows, what it computes and what it waits for to send; an arrow follows a microbatch of a lane
// from stage to stage. The ranks' clocks must be one. Pure; any thread.
#pragma once

#include <string>
#include <vector>

#include "base/step_trace.h"

namespace chainpump::cli {

/// Of one rank.
struct StageSteps {
  std::string name;  // "lane 0 stage 0: layers 0-13, process 77"
  StageIndex stage;
  std::vector<StepEvent> events;
};

/// Times count from `origin`.
std::string trace_json(const std::vector<StageSteps>& ranks, TimePoint origin);

}  // namespace chainpump::cli
