// What must be true of everything that coordinators have done, whoever of them did it, held against
// what is so in the processes: no epoch of a lane is used by two coordinators; nobody is told to
// connect while one that had links of the lane is not fenced in that epoch, or to resume before all
// are linked; a rank that moves is asked for the rest when its lanes are cut; lanes that no fault
// has touched see no action; no more ends are repaired than the plan allows; nobody is said to hang
// who has not been stopped for that long. One thread.
#pragma once

#include <deque>
#include <map>
#include <set>
#include <string>

#include "graph/changing_deployment.h"
#include "tests/sim/sim_agent.h"

namespace chainpump::sim {

class DeploymentCheck {
 public:
  DeploymentCheck(SimWorld& world, const Scenario& scenario, const SimAgent& agent)
      : world_(world), scenario_(scenario), agent_(agent) {}

  /// About to be carried out by the `coordinator`th of them.
  void action(const graph::Deployment::Action& action, int coordinator,
              const graph::ChangingDeployment& core);
  /// Is said to hang.
  void hung(const SimProcess& process, TimePoint now) const;
  /// A fault concerns the process, a lane, or all of them.
  void touch(ProcessId id);
  void touch(RankId place);
  void touch(graph::LaneId lane);
  void touch_all();
  /// From now on the deployment may fail.
  void may_fail() { may_fail_ = true; }
  int num_repairs() const { return num_repairs_; }
  int num_moves() const { return num_moves_; }
  int num_changes() const { return num_changes_; }

 private:
  using Action = graph::Deployment::Action;
  void use(const Action& action, int coordinator);
  void check_fenced(const Action& action, const graph::ChangingDeployment& core) const;
  void check_linked(const Action& action, const graph::ChangingDeployment& core) const;
  void check_cut(const Action& action) const;
  void count_repair();

  SimWorld& world_;
  const Scenario& scenario_;
  const SimAgent& agent_;
  std::map<std::pair<graph::LaneId, PlanEpoch>, int> used_;  // by whom
  std::set<graph::LaneId> touched_;
  std::deque<TimePoint> repairs_;  // within the plan's window
  int num_repairs_ = 0;
  int num_moves_ = 0;
  int num_changes_ = 0;  // of plan
  bool may_fail_ = false;
};

}  // namespace chainpump::sim
