// A process of the deployment: one rank, from its start to its end, with what it knows of each of
// its lanes. It may die, or be stopped for a while: then nothing of it happens, and whatever comes
// to it waits. A stuck one is stopped, too, but answers that its count stands still. One step at a
// time; lanes take turns. One thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graph/deployment.h"
#include "tests/sim/sim_stage.h"

namespace chainpump::sim {

class SimProcess : public Callee {
 public:
  /// The `run`th process of this number.
  SimProcess(SimWorld& world, const Scenario& scenario, LinkHub& hub, ProcessId id, uint32_t run);

  // As schemas/control.capnp has them; each is called when this is awake.
  void load(RankId place, Reply<graph::Deployment::Loaded> reply);
  /// Fails, at once or later, when a link of a lane at work has ended.
  void watch(Reply<Ok> reply);
  // Of a move: what another has goes over at once, when all lanes are cut.
  void take_in(Reply<Ok> reply);
  void copy(SimProcess& to, Reply<Ok> reply);
  void finish_copy(Reply<Ok> reply);
  SimStage* stage(graph::LaneId lane);
  void attach(graph::LaneId lane, const std::shared_ptr<ResultStream>& client, Reply<Ok> reply);

  // What befalls it.
  void die();
  void stop(Duration lasts, bool is_stuck);

  bool is_alive() const override { return alive_; }
  void when_awake(std::function<void()> what) override;
  ProcessId id() const override { return id_; }
  uint32_t run() const { return run_; }
  const std::string& name() const { return host_.name; }
  /// That it was told to load for.
  std::optional<RankId> place() const { return place_; }
  bool is_loaded() const { return loaded_; }
  bool is_stopped() const { return stopped_; }
  bool is_stuck() const { return alive_ && stopped_ && stuck_; }
  /// How far it has come, asked now.
  uint64_t beat() {
    if (stopped_) return beat_;
    last_beat_ = world_.now();
    return ++beat_;
  }
  TimePoint last_beat() const { return last_beat_; }  // that had grown
  void wake();

  /// Sums over its lanes.
  void check_table() const;
  void check_idle() const;
  bool is_idle() const;

 private:
  bool all_cut() const;
  Status take_over(const SimProcess& from);

  SimWorld& world_;
  const Scenario& scenario_;
  const ProcessId id_;
  const uint32_t run_;
  StageHost host_;
  std::vector<std::unique_ptr<SimStage>> stages_;  // by its lanes
  std::vector<std::pair<SimStage*, std::shared_ptr<ResultStream>>> clients_;
  std::vector<Reply<Ok>> watchers_;
  std::vector<std::function<void()>> deferred_;  // until it goes on
  std::optional<RankId> place_;
  SimProcess* copies_to_ = nullptr;
  bool takes_in_ = false;
  bool alive_ = true;
  bool loading_ = false;
  bool loaded_ = false;
  bool stopped_ = false;
  bool stuck_ = false;
  uint64_t beat_ = 0;
  TimePoint last_beat_;
  size_t turn_ = 0;
};

}  // namespace chainpump::sim
