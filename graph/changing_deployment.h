// A deployment that goes on by another plan while its lanes serve: the coordinator's core. Most of
// the time it is one Deployment and passes everything on to it. While it changes there are two,
// with process numbers of their own: the one in force, and one of the new plan, which comes up
// beside it.
//
//   state       what ends it                       what is asked then
//   starting    every new process has loaded       take_in, of the new ranks, for each part
//   preparing   all await what comes               copy, of the old ranks
//   copying     little is left that is not there   every lane is fenced: fence, of the old ranks
//   fencing     all have fenced, in every lane     finish, of the old ranks that copy
//   finishing   all is there                       fence, of the new ranks that took in
//   reporting   all have said what they hold       switched; the new one connects its lanes
//   switched    all its lanes serve                the old processes are killed; changed
//
//   what may happen                            before `switched`          then
//   a new process goes, hangs, cannot be       the change is given up:    an ordinary repair,
//   started or computes otherwise; a call      the new processes are      by the new plan
//   fails; a deadline; a lane of the old one   killed, the old lanes
//   has to be repaired; a new coordinator      go on
//
// What is written down (deployment_record.h) is of the one in force alone, so that a coordinator
// that comes before `switched` knows nothing of the change and ends who is not its own, and one
// that comes after it goes on by the new plan, and ends the old ones likewise. A plan that no rank
// would notice is taken over at once, by the processes that there are. Pure; one thread.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "graph/deployment.h"
#include "graph/plan_change.h"

namespace chainpump::graph {

class ChangingDeployment {
 public:
  using Action = Deployment::Action;
  using ActionKind = Deployment::ActionKind;
  using Event = Deployment::Event;
  using Actions = std::vector<Action>;
  using Phase = Deployment::Phase;

  /// Of a new deployment, or of one that was written down as the plan's number and first process.
  ChangingDeployment(const Plan& plan, const DeploymentLimits& limits,
                     const DeploymentRecord& before = {});

  // As Deployment's, of the one in force.
  Actions start(TimePoint now) { return passed_on(now_->start(now), now); }
  /// Of those that live, who is of another plan is killed.
  Actions adopt(const DeploymentRecord& record, const std::vector<ProcessId>& living,
                TimePoint now);
  Actions step(const Event& event, TimePoint now);
  Actions on_time(TimePoint now);
  std::optional<TimePoint> next_deadline() const;
  DeploymentRecord record() const;
  Status may_move(RankId place) const;

  /// Whether change() may come now. overloaded: something is being repaired, moved or changed; or
  /// as graph::may_change().
  Status may_change(const Plan& next) const;
  /// Every action of it is of this number; `changed` or `not_changed` comes once, at its end.
  Actions change(const Plan& next, TimePoint now);

  Phase phase() const;
  const Plan& plan() const { return plan_; }
  uint32_t plan_number() const { return plan_number_; }
  /// By which the process is what it is, if it is any deployment's.
  const Plan& plan_of(ProcessId process) const;
  /// Whether it is of the deployment in force; of another it may be, or of none.
  bool is_in_force(ProcessId process) const { return now_->owns(process); }
  /// Whether nobody has told its deployment to end.
  bool is_wanted(ProcessId process) const;
  /// Above all numbers that there are.
  uint32_t end_of_numbers() const;
  bool is_changing() const { return change_ != nullptr; }
  /// Or what was before it still ends.
  bool is_settled() const { return !change_ && !retiring_ && strangers_.empty(); }

  ProcessId process_in(RankId place) const { return now_->process_in(place); }
  PlanEpoch epoch(LaneId lane) const { return now_->epoch(lane); }
  PlanEpoch first_since(LaneId lane) const { return now_->first_since(lane); }
  const std::string& numerics_id() const { return now_->numerics_id(); }
  bool has_served() const { return now_->has_served(); }
  bool may_lose_one(TimePoint now) const { return is_settled() && now_->may_lose_one(now); }
  LaneRepair::State state(LaneId lane) const { return now_->state(lane); }
  const std::optional<RankMove>& move() const { return now_->move(); }

 private:
  enum class State : uint8_t {
    starting,
    preparing,
    copying,
    fencing,
    finishing,
    reporting,
    switched
  };
  /// Who is waited for: processes, with a part or a lane.
  using Awaited = std::set<std::pair<ProcessId, uint32_t>>;
  struct Change {
    uint32_t number = 0;
    Plan plan;
    std::unique_ptr<Deployment> next;  // until `switched`, then the old one
    std::vector<KvRoute> routes;
    State state = State::starting;
    Awaited awaited = {};
    std::optional<TimePoint> deadline = {};
    PlanEpoch epoch = {};  // in which the lanes change hands
  };

  Deployment* owner_of(const Event& event);
  Actions passed_on(Actions actions, TimePoint now);
  void take(Actions& all, Actions more, TimePoint now);
  void on_change_event(const Event& event, TimePoint now, Actions& all);
  void note(ProcessId process, uint32_t what, State state, TimePoint now, Actions& all);
  void go_on(TimePoint now, Actions& all);
  void go_on_if_all_came(TimePoint now, Actions& all);
  void ask_parts(ActionKind kind, TimePoint now, Actions& all);
  void await(State state, std::optional<TimePoint> deadline) {
    change_->state = state;
    change_->deadline = deadline;
  }
  void take_in(TimePoint now, Actions& all);
  void begin_handover(TimePoint now, Actions& all);
  void finish(TimePoint now, Actions& all);
  void fence_new(TimePoint now, Actions& all);
  void switch_over(TimePoint now, Actions& all);
  void look_after(TimePoint now, Actions& all);
  bool is_disturbed() const;
  void look_at_deadline(TimePoint now, Actions& all);
  void give_up(const Error& why, TimePoint now, Actions& all);
  void retire(std::unique_ptr<Deployment> old, TimePoint now, Actions& all);
  void kill_strangers(TimePoint now, Actions& all);

  const DeploymentLimits limits_;
  Plan plan_;
  uint32_t plan_number_;
  std::unique_ptr<Deployment> now_;
  std::unique_ptr<Change> change_;
  std::unique_ptr<Deployment> retiring_;         // killed, and not gone yet
  std::set<ProcessId> strangers_ = {};           // of other plans, that a coordinator before had
  std::optional<TimePoint> strangers_due_ = {};  // to be killed again
  TimePoint strangers_until_ = {};               // no more then
  uint32_t num_changes_ = 0;                     // that were begun
  bool told_stopped_ = false;                    // by the one in force
};

}  // namespace chainpump::graph
