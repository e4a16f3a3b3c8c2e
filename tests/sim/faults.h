// Brings a scenario's faults about, each so many events after the one before. One thread.
#pragma once

#include <functional>

#include "tests/sim/sim_clients.h"

namespace chainpump::sim {

/// The cluster, as far as faults have to do with it.
struct Victims {
  SimAgent& agent;
  SimStore& store;
  LinkHub& hub;
  DeploymentCheck& check;
  std::function<void(Duration)> end_coordinator;  // another comes after that
  std::function<void(Duration)> end_gateway;      // likewise
  std::function<void(RankId)> move_rank;
  std::function<void()> change_plan;
};

class Faults {
 public:
  Faults(SimWorld& world, const Scenario& scenario, Victims victims)
      : world_(world), scenario_(scenario), victims_(std::move(victims)) {}

  /// The deployment serves: from now on.
  void start();
  /// After every event.
  void on_event();
  /// No more of them.
  void stop();
  int num_injected() const { return static_cast<int>(next_); }

 private:
  void inject(const Fault& fault);
  SimProcess* pick() const;
  void end(SimProcess* process) const;

  SimWorld& world_;
  const Scenario& scenario_;
  const Victims victims_;
  size_t next_ = 0;
  int events_left_ = 0;
};

}  // namespace chainpump::sim
