// The lanes that a replay runs on: for each a sequencer and its stage loops over loopback links,
// with the real executors of a tiny model, whose steps take virtual time. One thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/lane_executor.h"
#include "actors/stage_loop.h"
#include "tests/actors/replay.h"
#include "tests/fakes/random.h"

namespace chainpump::actors {

/// What a setting's seed chooses.
struct ReplayChoices {
  int32_t blocks = 0;  // of a lane
  int32_t chunk = 0;   // 0: auto
  int32_t max_tokens = 0;
  int32_t max_sequences = 0;
  int32_t max_queued = 0;
  int32_t max_microbatches = 0;
  int32_t credits = 0;
  int64_t metadata_bytes = 0;
  std::vector<bool> shared;  // by stage: whether all lanes have one rank
  int arrivals = 1;          // of 20 actions
  Duration decode_delay{0};

  static ReplayChoices draw(const Setting& setting, fakes::Random& random);
};
std::string describe(const ReplayChoices& choices);

class ReplayLanes {
 public:
  ReplayLanes(const ReplayModel& model, const Setting& setting, const ReplayChoices& choices,
              ManualClock& clock, fakes::Random& random, StageLoop::OnDeliveries on_deliveries);

  size_t size() const { return lanes_.size(); }
  StageLoop& loop(size_t lane, size_t stage) { return *lanes_[lane].loops[stage]; }
  graph::Sequencer& sequencer(size_t lane) { return loop(lane, 0).sequencer(); }
  bool idle();
  /// Lengths of the pieces of prompts, but for each one's last, in the order they were run.
  const std::vector<int32_t>& chunks() const { return chunks_; }

 private:
  class TimedExecutor;
  struct Lane {
    std::vector<std::unique_ptr<transport::Waiter>> waiters;
    std::vector<std::unique_ptr<StepClock>> clocks;
    std::vector<std::unique_ptr<LaneExecutor>> executors;  // views of the ranks'
    std::vector<std::unique_ptr<StageLoop>> loops;
  };
  graph::SequencerOptions sequencer_options(int lane) const;
  std::shared_ptr<TimedExecutor> make_executor(const ReplayModel& model, int stage);
  void make_lane(const ReplayModel& model, int lane);

  Setting setting_;
  ReplayChoices choices_;
  ManualClock& clock_;
  fakes::Random& random_;
  StageLoop::OnDeliveries on_deliveries_;
  std::vector<int32_t> chunks_;
  std::vector<std::shared_ptr<TimedExecutor>> executors_;  // [lane, stage]
  std::vector<Lane> lanes_;
};

}  // namespace chainpump::actors
