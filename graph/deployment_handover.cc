// How one deployment takes the place of another that serves: what each of the two does of
// graph/changing_deployment.h.
#include <algorithm>

#include "base/check.h"
#include "graph/deployment.h"

namespace chainpump::graph {

Deployment::Actions Deployment::start_beside(TimePoint now) {
  starts_beside_ = true;
  return start(now);
}

Deployment::Actions Deployment::take_over_from(const Deployment& before, PlanEpoch epoch,
                                               TimePoint now) {
  CHECK(starts_beside_ && phase_ == Phase::starting && all_in(State::loaded));
  phase_ = Phase::serving;
  has_served_ = true;
  epoch_ = epoch;
  ends_ = Recent(ends_.window(), before.ends_.times());
  num_moves_ = before.num_moves_;
  for (Process& process : processes_)
    if (is_in_place(process)) take_place(process);
  for (LaneRepair& lane : lanes_) lane.begin(epoch, now);
  Actions actions;
  pass_on_asks(now, actions);
  return actions;
}

Deployment::Actions Deployment::begin_handover(TimePoint now) {
  CHECK(all_serve() && !move_);
  std::vector<LaneId> all;
  for (size_t i = 0; i < lanes_.size(); ++i) all.push_back(LaneId(static_cast<uint8_t>(i)));
  Actions actions;
  begin_repair(all, now, actions);
  for (const Place& place : places_)
    for (const LaneId lane : place.lanes) at(lane).wait_for_next(place.stage);
  pass_on_asks(now, actions);
  return actions;
}

Deployment::Actions Deployment::keep_lanes(TimePoint now) {
  for (const Place& place : places_)
    for (const LaneId lane : place.lanes) at(lane).keep(place.stage, now);
  Actions actions;
  pass_on_asks(now, actions);
  return actions;
}

Deployment::Actions Deployment::let_go(TimePoint now) {
  Actions actions;
  stop(now, actions, std::nullopt);
  return actions;
}

Deployment::Actions Deployment::retire(TimePoint now) {
  Actions actions = let_go(now);
  for (Process& process : processes_) {
    if (process.state != State::leaving) continue;
    process.deadline = now + limits_.leave_max;
    actions.push_back({.kind = ActionKind::kill, .process = id_of(process)});
  }
  return actions;
}

void Deployment::take_limits_of(const Plan& plan) {
  max_restarts_ = static_cast<size_t>(std::max(0, plan.failover_restarts));
  ends_ = Recent(plan.failover_window, ends_.times());
}

bool Deployment::all_serve() const {
  return phase_ == Phase::serving && has_served_ &&
         std::all_of(lanes_.begin(), lanes_.end(), [](const LaneRepair& lane) {
           return lane.state() == LaneRepair::State::serving;
         });
}

}  // namespace chainpump::graph
