// The coordinator's shell in virtual time (actors/coordinator_shell.h): it feeds the real
// Deployment and the real FailureDetector, writes the record down before it acts, and carries the
// actions out by calls to processes and to the agent. While it writes, which may take long,
// whatever comes to it waits. It may die at any event: in a write, or between two actions. One
// thread.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "graph/changing_deployment.h"
#include "graph/failure_detector.h"
#include "tests/sim/deployment_check.h"
#include "tests/sim/sim_agent.h"
#include "tests/sim/sim_store.h"

namespace chainpump::sim {

/// Where the first rank of a lane is, and since which epoch.
struct LaneFirst {
  ProcessId process;
  PlanEpoch since;
};

class SimCoordinator {
 public:
  struct Observer {
    std::function<void(graph::LaneId, LaneFirst)> on_first;
    std::function<void(const Error&)> on_failed;
  };

  /// The `number`th coordinator of the deployment.
  SimCoordinator(SimWorld& world, const Scenario& scenario, SimAgent& agent, SimStore& store,
                 DeploymentCheck& check, Observer observer, int number);

  /// As the first, or after another: the store says.
  void begin();
  void die();
  void stop();
  void move(RankId place);  // if it may
  void change();            // to a plan of other threads, if it may
  /// Tells a gateway that has just come.
  void tell_firsts();

  bool is_alive() const { return alive_; }
  bool has_announced() const { return announced_; }
  bool has_failed() const { return failed_; }
  bool has_stopped() const { return core_.phase() == Deployment::Phase::stopped; }
  /// What it still waits for; empty if every lane serves and every process has loaded.
  std::string unfinished() const;

 private:
  using Deployment = graph::Deployment;
  using LaneId = graph::LaneId;
  using Actions = std::vector<Deployment::Action>;
  struct Process {
    uint32_t run = 0;
    SimProcess* is = nullptr;  // null: not started yet
    bool is_loaded = false;
    bool is_watched = false;
  };
  struct Lane {
    PlanEpoch fence_epoch;
    std::map<ProcessId, graph::StageHoldings> holdings;
    std::map<ProcessId, graph::StageHoldings> held_before;  // planted
  };

  Process& at(ProcessId id) { return processes_[id.value]; }
  bool is_there(ProcessId id, uint32_t run) {
    return at(id).run == run || world_.plant == Plant::zombie_believed;
  }

  // What comes waits its turn.
  void post(std::function<void()> what);
  void next();
  void step(const Deployment::Event& event);
  void carry_out(Actions actions);
  void write_down(std::function<void(Status)> then);
  Actions give_up(const Actions& undone, const Error& why);
  void carry_out_from(std::shared_ptr<Actions> actions, size_t first);
  void set_alarm();
  void on_alarm();

  // Taking over (adoption.cc).
  graph::DeploymentRecord believed(graph::DeploymentRecord record) const;
  void take_over(const graph::DeploymentRecord& record);

  // Carrying out (coordinator_actions.cc).
  void carry_out(const Deployment::Action& action);
  void on_exited(ProcessId id, uint32_t run, const std::string& how);
  void on_started(SimProcess& process);
  void greet(ProcessId id);
  void load(const Deployment::Action& action);
  void on_loaded(ProcessId id, Deployment::Loaded loaded);
  void watch(ProcessId id);
  void fence(const Deployment::Action& action);
  void connect(const Deployment::Action& action);
  void resume(const Deployment::Action& action);
  void answered(const Deployment::Action& action, uint32_t run, const Result<Ok>& done);
  void lane_serving(const Deployment::Action& action);
  void ask_of_move(const Deployment::Action& action,
                   std::function<void(SimProcess&, Reply<Ok>)> what, Deployment::Event well);
  void say_of_change(const Deployment::Action& action);
  void shutdown(ProcessId id);
  void look_for_hangs();
  template <typename Answer>
  void ask(ProcessId id, std::function<void(SimProcess&, Reply<Answer>)> what,
           std::function<void(uint32_t run, Result<Answer>)> then, bool reliable = false);
  void tell_failed(ProcessId id, const Error& error);

  SimWorld& world_;
  const Scenario& scenario_;
  SimAgent& agent_;
  SimStore& store_;
  DeploymentCheck& check_;
  const Observer observer_;
  const int number_;
  bool alive_ = true;
  bool in_turn_ = false;
  bool busy_ = false;  // writes, or acts
  bool failed_ = false;
  bool begun_ = false;
  bool announced_ = false;  // that the deployment serves
  graph::ChangingDeployment core_;
  graph::FailureDetector detector_;
  std::optional<graph::DeploymentRecord> written_;
  std::deque<std::function<void()>> inbox_;
  std::vector<Process> processes_;  // by number
  std::vector<Lane> lanes_;
  std::optional<TimePoint> alarm_;
};

}  // namespace chainpump::sim
