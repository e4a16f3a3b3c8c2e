#include "actors/sequencer_options.h"

#include <fmt/format.h>

#include <algorithm>

namespace chainpump::actors {

graph::SequencerOptions sequencer_options(const graph::Plan& plan, graph::LaneId lane,
                                          int32_t vocabulary_size) {
  graph::SequencerOptions options;
  options.lane = lane.value;
  for (const graph::StagePlan& stage : plan.stages)
    options.stages.push_back(
        {stage.name.empty() ? fmt::format("stage {}", stage.index) : stage.name,
         plan.kv.num_blocks});
  options.block_tokens = plan.kv.block_tokens;
  options.context_tokens = plan.context_tokens;
  options.max_microbatch_tokens = plan.max_microbatch_tokens;
  // One stage sends its microbatches nowhere.
  if (plan.stages.size() > 1) options.max_metadata_bytes = plan.edges.front().slot_metadata_bytes;
  options.prefill_chunk_tokens = plan.prefill_chunk_tokens;
  options.max_sequences = plan.max_sequences;
  options.max_queued = plan.max_queued;
  options.max_microbatches = plan.max_microbatches;
  options.vocabulary_size = vocabulary_size;
  options.prefix_cache = plan.prefix_cache;
  options.decode_delay_max = plan.decode_delay_max / lanes_per_rank_max(plan);
  options.cost_prior = predicted_cost(plan);
  return options;
}

graph::StepCost::Coefficients predicted_cost(const graph::Plan& plan) {
  const auto slowest = std::max_element(
      plan.stages.begin(), plan.stages.end(),
      [](const auto& a, const auto& b) { return a.predicted_prefill_s < b.predicted_prefill_s; });
  const int32_t chunk =
      plan.prefill_chunk_tokens > 0 ? plan.prefill_chunk_tokens : plan.max_microbatch_tokens;
  if (slowest == plan.stages.end() || chunk < 2) return {};
  const double decode_s = slowest->predicted_decode_s;
  const double token_s = std::max(0.0, (slowest->predicted_prefill_s - decode_s) / (chunk - 1));
  return {.overhead_s = std::max(0.0, decode_s - token_s), .token_s = token_s, .attended_s = 0};
}

}  // namespace chainpump::actors
