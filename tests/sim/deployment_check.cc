#include "tests/sim/deployment_check.h"

namespace chainpump::sim {

using namespace std::chrono_literals;
using graph::LaneId;
using Kind = graph::Deployment::ActionKind;

void DeploymentCheck::action(const Action& action, int coordinator,
                             const graph::ChangingDeployment& core) {
  switch (action.kind) {
    case Kind::fence:
      return use(action, coordinator);
    case Kind::connect:
      use(action, coordinator);
      return check_fenced(action, core);
    case Kind::resume:
      use(action, coordinator);
      return check_linked(action, core);
    case Kind::repairing:
      return count_repair();
    case Kind::fail:
      if (!may_fail_ && scenario_.plan.failover_restarts > 100)
        world_.fail("the deployment fails: {}", action.error.message);
      return;
    case Kind::spawn:
    case Kind::load:
    case Kind::serve:
    case Kind::lane_serving:
    case Kind::shutdown:
    case Kind::kill:
    case Kind::stopped:
      return;
    case Kind::take_in:
    case Kind::copy:
    case Kind::not_moved:
      return;
    case Kind::finish:
      return check_cut(action);
    case Kind::moved:
      ++num_moves_;
      return;
    case Kind::changed:
      ++num_changes_;
      return;
    case Kind::ready:
    case Kind::switched:
    case Kind::not_changed:
      return;
  }
}

void DeploymentCheck::use(const Action& action, int coordinator) {
  const auto [entry, is_new] = used_.emplace(std::pair(action.lane, action.epoch), coordinator);
  if (entry->second != coordinator)
    world_.fail("lane {}: epoch {} is used by coordinator {}, and was by {}", action.lane,
                action.epoch, coordinator, entry->second);
  const bool first = action.epoch == scenario_.plan.epoch;
  if (!first && !touched_.contains(action.lane))
    world_.fail("lane {} is repaired, and nothing was wrong with it", action.lane);
}

void DeploymentCheck::check_fenced(const Action& action,
                                   const graph::ChangingDeployment& core) const {
  for (const graph::StagePlan& stage : scenario_.plan.stages) {
    const ProcessId id = core.process_in(rank_at(scenario_.plan, action.lane, stage.index));
    SimProcess* const process = agent_.process(id);
    if (process == nullptr || !process->is_alive()) continue;
    const SimStage* const own = process->stage(action.lane);
    if (own != nullptr && own->seen().linked && own->epoch() != action.epoch)
      return world_.fail("lane {}: epoch {} is connected, and {} was not fenced in it", action.lane,
                         action.epoch, process->name());
  }
}

void DeploymentCheck::check_linked(const Action& action,
                                   const graph::ChangingDeployment& core) const {
  for (const graph::StagePlan& stage : scenario_.plan.stages) {
    const ProcessId id = core.process_in(rank_at(scenario_.plan, action.lane, stage.index));
    SimProcess* const process = agent_.process(id);
    if (process == nullptr || !process->is_alive()) continue;
    const SimStage* const own = process->stage(action.lane);
    if (own == nullptr || !own->is_linked_in(action.epoch))
      return world_.fail("lane {}: resumes in epoch {}, and {} is not linked in it", action.lane,
                         action.epoch, process->name());
  }
}

void DeploymentCheck::check_cut(const Action& action) const {
  SimProcess* const process = agent_.process(action.process);
  if (process == nullptr || !process->is_alive()) return;
  for (const LaneId lane : lanes_of(scenario_.plan, action.place))
    if (const SimStage* const own = process->stage(lane); own == nullptr || !own->is_cut())
      world_.fail("{}: the rest is copied while lane {} is at work", process->name(), lane);
}

void DeploymentCheck::count_repair() {
  ++num_repairs_;
  repairs_.push_back(world_.now());
  while (world_.now() - repairs_.front() > scenario_.plan.failover_window - 1s)
    repairs_.pop_front();
  if (static_cast<int32_t>(repairs_.size()) > scenario_.plan.failover_restarts)
    world_.fail("{} ends are repaired within {} s, {} may be", repairs_.size(),
                to_seconds(scenario_.plan.failover_window), scenario_.plan.failover_restarts);
}

void DeploymentCheck::hung(const SimProcess& process, TimePoint now) const {
  if (!process.is_alive()) return;
  const Duration least = 600ms;  // hang_max less a period
  const Duration ago = now - process.last_beat();
  if (ago < least)
    world_.fail("{} is said to hang {:.3f} s after its last beat", process.name(), to_seconds(ago));
}

/// One that has not been told what it is may be anybody's.
void DeploymentCheck::touch(ProcessId id) {
  const SimProcess* const process = agent_.process(id);
  if (process == nullptr || !process->place()) return touch_all();
  touch(*process->place());
}

void DeploymentCheck::touch(RankId place) {
  for (const LaneId lane : lanes_of(scenario_.plan, place)) touched_.insert(lane);
}

/// A rank whose link breaks has all its lanes repaired.
void DeploymentCheck::touch(LaneId lane) {
  for (const graph::StagePlan& stage : scenario_.plan.stages)
    for (const LaneId other : lanes_of(scenario_.plan, rank_at(scenario_.plan, lane, stage.index)))
      touched_.insert(other);
}

void DeploymentCheck::touch_all() {
  for (int i = 0; i < scenario_.num_lanes(); ++i) touched_.insert(LaneId(static_cast<uint8_t>(i)));
}

}  // namespace chainpump::sim
