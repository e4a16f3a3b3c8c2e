#include "actors/lane_executor.h"

#include <algorithm>

#include "base/check.h"

namespace chainpump::actors {
namespace {

bool names_blocks(const graph::Microbatch& microbatch) {
  return !microbatch.copies.empty() ||
         std::any_of(microbatch.slices.begin(), microbatch.slices.end(),
                     [](const graph::SequenceSlice& slice) { return !slice.new_blocks.empty(); });
}

void move_blocks(graph::Microbatch& microbatch, int32_t by) {
  for (graph::BlockCopy& copy : microbatch.copies) {
    copy.from.value += by;
    copy.to.value += by;
  }
  for (graph::SequenceSlice& slice : microbatch.slices)
    for (KvBlockId& block : slice.new_blocks) block.value += by;
}

}  // namespace

LaneExecutor::LaneExecutor(models::StageExecutor& executor, const LaneShare& share)
    : executor_(executor), share_(share) {
  const graph::MicrobatchLimits whole = executor.limits();
  CHECK_LE(share.first_kv_block.value, whole.num_kv_blocks - share.num_kv_blocks);
  CHECK_LE(share.max_sequences, whole.max_sequences);
}

graph::MicrobatchLimits LaneExecutor::limits() const {
  graph::MicrobatchLimits limits = executor_.limits();
  limits.num_kv_blocks = share_.num_kv_blocks;
  limits.max_sequences = share_.max_sequences;
  return limits;
}

Status LaneExecutor::run(const graph::Microbatch& microbatch, std::span<const float> input,
                         std::span<float> output, graph::StepResult& result) {
  // Most steps of decoding name no block: a table grows by one in every 32 of them.
  if (share_.first_kv_block.value == 0 || !names_blocks(microbatch))
    return executor_.run(microbatch, input, output, result);
  moved_ = microbatch;
  move_blocks(moved_, share_.first_kv_block.value);
  return executor_.run(moved_, input, output, result);
}

}  // namespace chainpump::actors
