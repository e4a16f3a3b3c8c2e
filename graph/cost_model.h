// What a layer costs in time on a machine: the larger of reading its weights and multiplying them
// (the roofline). Rates are measured elsewhere and handed in. Pure; any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/model_profile.h"

namespace chainpump::graph {

struct MachineProfile {
  std::vector<int> cores;  // logical CPUs that may be used
  int64_t memory_bytes = 0;
  /// [threads - 1]; more threads than entries read at the last rate.
  std::vector<double> read_bytes_per_s;
  // Of one core; 2 per multiply-add.
  double int8_ops_per_s = 0;
  double f32_ops_per_s = 0;
  double bf16_ops_per_s = 0;
};

/// Round figures of a machine with these cores, for tests and where nothing was measured.
MachineProfile nominal_machine(int num_cores, int64_t memory_bytes);

/// Seconds for `num_tokens` tokens through weights at `threads` threads. Quantised weights are
/// multiplied as int8, unless `exact`.
double weights_seconds(const WeightBytes& weights, const MachineProfile& machine, int threads,
                       int num_tokens, bool exact);

/// Seconds to look up so many tokens: one row of the table for each.
double embedding_seconds(const ModelProfile& model, const MachineProfile& machine, int num_tokens);

}  // namespace chainpump::graph
