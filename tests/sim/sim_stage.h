// One stage of one lane in a process, with its links: what actors/rank_lanes.h and
// actors/stage_loop.h do with the cores, in virtual time. Steps sleep for as long as they cost.
//
//   state     connect       links open   fence         a link ended   drained
//   cut       -> opening    -            answered      -              -
//   opening   refused       -> work      -> cut        answered       -
//   work      refused       -            -> draining   -> draining    -
//   draining  refused       -            answered then -              -> cut
// The first stage begins nothing from a fence, or a broken link, until it is resumed; others run
// what has come to them. One thread.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graph/lane_repair.h"
#include "tests/sim/sim_calls.h"
#include "tests/sim/sim_front.h"
#include "tests/sim/stage_memory.h"

namespace chainpump::sim {

/// What the lanes of a process share.
struct StageHost {
  SimWorld& world;
  const Scenario& scenario;
  LinkHub& hub;
  std::string name;
  double slowness = 1;
  models::SequenceTable table;
  bool busy = false;                                 // with a step of some lane
  std::function<void(std::function<void()>)> awake;  // as Callee::when_awake
  std::function<void()> wake;                        // some lane may have a step to run
  std::function<void()> on_broken;                   // a link of a lane at work has ended
};

class SimStage {
 public:
  SimStage(StageHost& host, graph::LaneId lane, int stage);

  // What the coordinator asks.
  void connect(PlanEpoch epoch, Reply<Ok> reply);
  void fence(PlanEpoch epoch, Reply<graph::StageHoldings> reply);
  void resume(PlanEpoch epoch, std::vector<graph::StageHoldings> stages, Reply<Ok> reply);
  graph::LaneSeen seen() const;
  /// Holds what the other holds, whose place it is to take.
  void take_over(const SimStage& other);
  /// A link at which work was going on has ended, and it was not linked again.
  bool is_broken() const { return broken_; }

  // What the process does in turns.
  bool begin_step();

  /// Its process has died.
  void drop_links();

  SimFront* front() { return front_.get(); }
  /// Whether a client may come: not before it is linked, and others may have to be heard first.
  bool has_door() const { return front_ != nullptr && was_linked_ && !awaited_; }
  const StageMemory& memory() const { return memory_; }
  StageMemory& memory() { return memory_; }
  graph::LaneId lane() const { return lane_; }
  int stage() const { return stage_; }
  PlanEpoch epoch() const { return epoch_; }
  bool is_linked_in(PlanEpoch epoch) const { return was_linked_ && epoch_ == epoch; }
  bool is_at_work() const { return state_ == State::work; }
  bool is_cut() const { return state_ == State::cut; }
  bool is_held() const { return held_; }
  void check_idle() const;

 private:
  enum class State : uint8_t { cut, opening, work, draining };
  bool is_first() const { return stage_ == 0; }
  bool is_last() const { return stage_ + 1 == host_.scenario.num_stages(); }
  SimLink::End end_of(PlanEpoch epoch);
  void on_open(PlanEpoch epoch, bool output, std::shared_ptr<SimLink> link);
  void abandon(const Error& why);
  void on_frame(SimFrame frame);
  void look_at_links();
  void begin_draining();
  void drain();
  void cut();
  void answer_fence();
  std::optional<SimFrame> next_frame();
  Duration cost_of(const graph::Microbatch& microbatch) const;
  void finish(SimFrame frame, Duration spent, const graph::Microbatch& microbatch,
              graph::StepResult result);

  StageHost& host_;
  SimWorld& world_;
  const graph::LaneId lane_;
  const int stage_;
  const std::string name_;
  StageMemory memory_;
  std::unique_ptr<SimFront> front_;  // at the first stage
  State state_ = State::cut;
  PlanEpoch epoch_;          // the newest seen
  bool was_linked_ = false;  // in any epoch
  bool took_over_ = false;
  bool awaited_ = false;  // no client before it was resumed
  bool held_ = false;     // begins nothing before that
  bool broken_ = false;
  std::shared_ptr<LaneRun> run_;
  std::shared_ptr<SimLink> in_, out_;
  Reply<Ok> opened_;
  Reply<graph::StageHoldings> fenced_;
  std::deque<SimFrame> queue_;  // arrived, each in a slot
  bool running_ = false;        // a step
  bool sends_ = false;          // what the step makes
  uint64_t last_run_ = 0;       // microbatch, in this epoch
};

}  // namespace chainpump::sim
