// `chainpump bench pipeline`: the engine without a model. Stages sleep for a known time
// (models/sleep/), so that many fit on few cores and what is lost beside them is the engine's own:
// scheduling, links, actors, control. Each case runs as threads over loopback and as processes over
// TCP.
//
//   even, uneven   8 requests a stage, tokens per second while all of them decode; ideal: 8 tokens
//                  for every step of the slowest stage
//   long prompt    32,768 tokens, a step of c of them takes 0.3 ms + 32/S us * c + 1.05/S ns * c *
//                  (prefix + c/2), an 8B model on an H100 in real time; ideal: the time on one
//                  stage / S; the most: what no chunks can beat, as every stage adds its 0.3 ms;
//                  chunks fitted by the scheduler (to one prompt before) against fixed ones
//
// Every wait has a deadline; SIGINT and SIGTERM end it at once. Figures are shown, never judged.
// Wants an otherwise idle machine.
#pragma once

namespace chainpump::cli {

struct BenchPipelineOptions {
  int rounds = 3;  // the median is shown
  bool json = false;
};

/// Prints the table, or JSON {"release", "commit", "rows": [{"name", "links", "seconds", "ideal",
/// "ratio", ...}]}, to standard output; returns the exit status.
int run_bench_pipeline(const BenchPipelineOptions& options);

}  // namespace chainpump::cli
