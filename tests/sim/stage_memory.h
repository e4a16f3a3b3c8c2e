// What one stage of one lane holds, and what it makes of a microbatch: the real SequenceTable,
// which it shares with the other lanes of its process, the real ReplayLog, and a chain that knows
// what stands at every position (tests/fakes/kv_chain.h). Two accounts of the same blocks, compared
// with each other and with those of the lane's other stages after every microbatch. One thread.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>

#include "graph/replay_log.h"
#include "models/sequence_table.h"
#include "tests/fakes/kv_chain.h"
#include "tests/sim/link_hub.h"

namespace chainpump::sim {

/// What all lanes of a scenario together may hold at a process.
graph::MicrobatchLimits limits_of(const Scenario& scenario);

class StageMemory {
 public:
  /// `table` is the process's.
  StageMemory(SimWorld& world, const Scenario& scenario, models::SequenceTable& table,
              std::string name, graph::LaneId lane, int stage);

  /// Takes it in, on both accounts. Empty if something is wrong with it.
  std::optional<graph::StepResult> run(const SimFrame& frame, const graph::Microbatch& microbatch);
  /// The same sequences in the same blocks as the stages before, by the accounts of this epoch.
  void compare(const SimFrame& frame, LaneRun& run) const;
  /// Some stage of its lane has lost what it held.
  void set_repaired() { chain_.set_repaired(); }

  /// What another process's holds at the same stage of the lane. The table is its process's.
  void take_over(const StageMemory& other) {
    chain_ = other.chain_;
    held_ = other.held_;
  }

  graph::StageHoldings holdings() const;
  /// For how many positions of a block, by the tables of those sequences.
  int32_t num_held(std::span<const SequenceId> sequences, KvBlockId block) const;
  int32_t num_logged(KvBlockId block) const { return log_.num_positions(block); }
  size_t num_sequences() const { return held_.size(); }
  int32_t num_blocks() const { return chain_.num_blocks_held(); }
  /// As the planted bug has it: before its turn.
  void release_early(const graph::Microbatch& microbatch);

 private:
  void plant_bug(graph::Microbatch& microbatch) const;
  void log(const graph::Microbatch& microbatch);
  void check_supply(const graph::Microbatch& microbatch);
  void check_forgotten(const SimFrame& frame, const graph::Microbatch& microbatch) const;

  SimWorld& world_;
  models::SequenceTable& table_;
  const std::string name_;
  const graph::SequencerOptions& lane_;
  const int stage_;
  const bool is_last_;
  fakes::KvChain chain_;
  graph::ReplayLog log_;                 // a row says which token it was made of, at which position
  std::map<SequenceId, uint64_t> held_;  // and of which request
};

}  // namespace chainpump::sim
