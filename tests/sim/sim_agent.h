// The node agent: starts processes, ends them, and tells the coordinator that is there now of each
// end. What an agent that dies has started dies with it. One thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/sim/sim_process.h"

namespace chainpump::sim {

/// Of processes of two plans, of which one takes the place of the other.
inline size_t most_numbers(const graph::Plan& plan) {
  return 2 * static_cast<size_t>(num_numbers(plan));
}

class SimAgent {
 public:
  using OnExit = std::function<void(ProcessId, uint32_t run, const std::string& how)>;
  SimAgent(SimWorld& world, const Scenario& scenario, LinkHub& hub)
      : world_(world), scenario_(scenario), hub_(hub), newest_(most_numbers(scenario.plan)) {}

  /// Whom to tell of ends from now on; the last one that asked.
  void on_exits(OnExit on_exit) { on_exit_ = std::move(on_exit); }
  void spawn(ProcessId id, uint32_t run, std::function<void(SimProcess&)> started) {
    if (newest_[id.value] != nullptr && newest_[id.value]->is_alive())
      return world_.fail("process {} is started, and runs", id);
    if (newest_[id.value] != nullptr && newest_[id.value]->run() >= run)
      return world_.fail("process {} is started as number {} again", id, run);
    all_.push_back(std::make_unique<SimProcess>(world_, scenario_, hub_, id, run));
    SimProcess* const process = newest_[id.value] = all_.back().get();
    world_.after(world_.random.up_to(scenario_.start_delay), [process, started] {
      if (process->is_alive()) started(*process);
    });
  }
  void kill(ProcessId id) {
    SimProcess* const process = newest_[id.value];
    if (process == nullptr) return;
    const Duration after = std::exchange(next_kill_takes_, Duration(0));
    world_.disturb_for(after);
    world_.after(after, [this, process] { end(*process, "killed"); });
  }
  void end(SimProcess& process, const std::string& how) {
    if (!process.is_alive()) return;
    process.die();
    world_.after(world_.random.up_to(std::chrono::milliseconds(5)), [this, &process, how] {
      if (on_exit_) on_exit_(process.id(), process.run(), how);
    });
  }
  void kill_slowly(Duration lasts) { next_kill_takes_ = lasts; }
  void die() {
    on_exit_ = nullptr;
    for (SimProcess* const process : newest_)
      if (process != nullptr) process->die();
  }

  /// The last process of each number; null where there was none.
  const std::vector<SimProcess*>& processes() const { return newest_; }
  SimProcess* process(ProcessId id) const { return newest_[id.value]; }
  /// Of all sequencers that there ever were.
  std::vector<graph::SequencerStats> sequencers() const {
    std::vector<graph::SequencerStats> all;
    for (const auto& process : all_)
      for (int i = 0; i < scenario_.num_lanes(); ++i)
        if (SimStage* const stage = process->stage(graph::LaneId(static_cast<uint8_t>(i))))
          if (stage->front() != nullptr) all.push_back(stage->front()->sequencer().stats());
    return all;
  }

 private:
  SimWorld& world_;
  const Scenario& scenario_;
  LinkHub& hub_;
  std::vector<std::unique_ptr<SimProcess>> all_;  // the dead, too: what they began may come yet
  std::vector<SimProcess*> newest_;               // by number
  OnExit on_exit_;
  Duration next_kill_takes_{0};
};

}  // namespace chainpump::sim
