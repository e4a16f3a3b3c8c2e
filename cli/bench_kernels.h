// `chainpump bench kernels`: what the kernels achieve on the shapes of a model and of an 8B llama,
// per weight type and number of tokens, beside what the machine can do at most: its read bandwidth
// and multiply-add peaks, measured in the same run on the same threads. Weights are random and lie
// in more memory than the caches hold, so a product reads them as a decode step does. Figures are
// shown, never judged. Call from a thread that owns no team; wants an otherwise idle machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace chainpump::cli {

struct BenchKernelsOptions {
  std::string graph = "demo";  // a graph file, whose model gives the first set of shapes
  std::string model_path;      // overrides the graph's model
  int num_threads = 1;
  std::vector<std::string> types;  // weight types; empty: all
  bool json = false;
};

/// Prints the table, or JSON {"release", "isa", "threads", "rows": [{"model", "operation", "type",
/// "shape", "tokens", "achieved", "bound", "unit", "ratio"}]}, with no bound: 0 and null, to
/// standard output. Exit status: 0; 2 for an unknown type or instruction set; else the error's
/// class (exit_status.h).
int run_bench_kernels(const BenchKernelsOptions& options);

}  // namespace chainpump::cli
