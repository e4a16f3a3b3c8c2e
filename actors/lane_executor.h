// One lane's view of the executor that a rank's lanes share. Weights, threads and KV pool are the
// rank's, held once; the lane has a share of the blocks and of the sequences. Its frames name its
// blocks from 0, the same on every stage; here they become the rank's. What a lane's frame names
// outside its share is refused where it is decoded, by limits(): no lane reaches another's blocks.
// Sequence ids carry their lane (graph/sequence_store.h), so those need no translation.
//
// Thread rule: one thread, the executor's.
#pragma once

#include "models/stage_executor.h"

namespace chainpump::actors {

struct LaneShare {
  KvBlockId first_kv_block;  // of the rank's blocks
  int32_t num_kv_blocks = 0;
  int32_t max_sequences = 0;
};

class LaneExecutor final : public models::StageExecutor {
 public:
  /// `executor` outlives this and has room for the shares of all its lanes.
  LaneExecutor(models::StageExecutor& executor, const LaneShare& share);

  int32_t hidden_size() const override { return executor_.hidden_size(); }
  graph::MicrobatchLimits limits() const override;
  /// Of the whole rank, as is the next.
  models::ExecutorStats stats() const override { return executor_.stats(); }
  const models::SequenceTable& sequences() const override { return executor_.sequences(); }
  std::span<std::byte> kv_block(int32_t layer, KvBlockId block) override {
    return executor_.kv_block(layer, KvBlockId(block.value + share_.first_kv_block.value));
  }
  /// Of all lanes of the rank, in its blocks.
  Status take_over(std::span<const graph::StageHoldings::Held> sequences) override {
    return executor_.take_over(sequences);
  }
  Status run(const graph::Microbatch& microbatch, std::span<const float> input,
             std::span<float> output, graph::StepResult& result) override;

 private:
  models::StageExecutor& executor_;
  const LaneShare share_;
  graph::Microbatch moved_;  // kept for its memory
};

}  // namespace chainpump::actors
