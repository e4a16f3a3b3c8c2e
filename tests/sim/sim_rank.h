// A rank in virtual time: an executor that sleeps for as long as a step costs, with what a stage
// holds of KV: the real SequenceTable for all lanes that it serves, and for each of them a chain
// that knows what stands at every position (tests/fakes/kv_chain.h). Two accounts of the same
// blocks, compared with each other and with those of the lane's other stages after every
// microbatch. One microbatch at a time; lanes take turns. One thread.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "graph/replay_log.h"
#include "models/sequence_table.h"
#include "tests/fakes/kv_chain.h"
#include "tests/sim/sim_link.h"

namespace chainpump::sim {

/// What a lane's first stage held after each microbatch, for those that come after it to compare.
struct StageAccount {
  int32_t num_blocks = 0;
  size_t num_sequences = 0;
  bool operator==(const StageAccount&) const = default;
};

/// One stage of one lane, in one incarnation.
struct StagePort {
  StagePort(const graph::SequencerOptions& lane_options, int stage_index, int32_t log_blocks);

  const graph::SequencerOptions& options;
  int stage = 0;
  bool last = false;
  fakes::KvChain chain;
  std::shared_ptr<SimLink> in;  // none at the first stage: that one forms its frames
  std::shared_ptr<SimLink> out;
  std::function<std::optional<SimFrame>()> form;
  std::shared_ptr<std::map<uint64_t, StageAccount>> accounts;
  std::deque<SimFrame> queue;  // arrived, each in a slot
  std::set<SequenceId> held;
  graph::ReplayLog log;   // a row says which token it was made of, at which position
  uint64_t last_run = 0;  // microbatch
  bool running = false;   // a step
  bool ended = false;     // with its lane, or its rank
};

class SimRank {
 public:
  SimRank(SimWorld& world, const Scenario& scenario, std::string name);

  void add(std::shared_ptr<StagePort> port);
  /// Its lane has ended: forgets its sequences.
  void remove(const std::shared_ptr<StagePort>& port);
  void on_frame(StagePort& port, SimFrame frame);
  /// Forgets everything; its steps come to nothing.
  void die();
  /// What a stage holds for its lane.
  graph::StageHoldings holdings(const StagePort& port) const;
  /// For how many positions of a block, by the tables of those sequences.
  int32_t num_held(const StagePort& port, std::span<const SequenceId> sequences,
                   KvBlockId block) const;
  /// Begins a step, if it is idle and some lane has one and a credit to send what comes out.
  void wake();
  /// Nothing is held and nothing runs.
  void check_empty() const;

 private:
  bool begin(const std::shared_ptr<StagePort>& port);
  std::optional<graph::StepResult> run(StagePort& port, const SimFrame& frame,
                                       const graph::Microbatch& microbatch);
  void log(StagePort& port, const graph::Microbatch& microbatch);
  void check_supply(StagePort& port, const graph::Microbatch& microbatch);
  void plant_bug(StagePort& port, graph::Microbatch& microbatch);
  void check_accounts(StagePort& port, const SimFrame& frame);
  Duration cost_of(const graph::Microbatch& microbatch);
  void finish(StagePort& port, SimFrame frame, Duration spent, const graph::Microbatch& microbatch,
              graph::StepResult result);

  SimWorld& world_;
  const Scenario& scenario_;
  std::string name_;
  double slowness_;
  models::SequenceTable table_;
  std::vector<std::shared_ptr<StagePort>> ports_;
  size_t turn_ = 0;
  uint32_t incarnation_ = 0;
  bool busy_ = false;
};

}  // namespace chainpump::sim
