#include "tests/sim/faults.h"

namespace chainpump::sim {

void Faults::start() {
  world_.faulty = !scenario_.faults.empty();
  if (world_.faulty) events_left_ = scenario_.faults[0].after_events;
}

void Faults::stop() {
  if (!std::exchange(world_.faulty, false)) return;
  world_.disturb_for(Duration(0));
  world_.say("no more faults");
}

void Faults::on_event() {
  if (!world_.faulty || --events_left_ > 0) return;
  const Fault& fault = scenario_.faults[next_++];
  world_.say("fault: {}", kFaultNames[static_cast<size_t>(fault.kind)]);
  inject(fault);
  if (next_ == scenario_.faults.size()) return stop();
  events_left_ = scenario_.faults[next_].after_events;
}

/// Somebody who lives, or null.
SimProcess* Faults::pick() const {
  std::vector<SimProcess*> living;
  for (SimProcess* const process : victims_.agent.processes())
    if (process != nullptr && process->is_alive()) living.push_back(process);
  if (living.empty()) return nullptr;
  return living[static_cast<size_t>(world_.random.pick(static_cast<int>(living.size())))];
}

void Faults::end(SimProcess* process) const {
  if (process == nullptr) return;
  world_.touch(process->id());
  victims_.agent.end(*process, "killed by signal 9");
}

void Faults::inject(const Fault& fault) {
  switch (fault.kind) {
    case FaultKind::rank_dies:
      return end(pick());
    case FaultKind::two_ranks_die:
      end(pick());
      return end(pick());
    case FaultKind::rank_stops:
    case FaultKind::rank_stuck:
      if (SimProcess* const process = pick()) {
        world_.touch(process->id());
        process->stop(fault.lasts, fault.kind == FaultKind::rank_stuck);
      }
      return;
    case FaultKind::link_breaks: {
      const graph::LaneId lane(static_cast<uint8_t>(world_.random.pick(scenario_.num_lanes())));
      if (victims_.hub.break_one(lane)) victims_.check.touch(lane);
      return;
    }
    case FaultKind::coordinator_dies:
      return victims_.end_coordinator(fault.lasts);
    case FaultKind::gateway_dies:
      return victims_.end_gateway(fault.lasts);
    case FaultKind::agent_dies:
      victims_.check.touch_all();
      victims_.agent.die();
      return victims_.end_coordinator(fault.lasts);
    case FaultKind::store_slow:
      return victims_.store.write_slowly(fault.lasts);
    case FaultKind::store_fails:
      victims_.check.may_fail();
      return victims_.store.fail_next();
    case FaultKind::rank_moves:
      return victims_.move_rank(
          RankId(static_cast<uint32_t>(world_.random.pick(num_ranks(scenario_.plan)))));
    case FaultKind::plan_changes:
      return victims_.change_plan();
    case FaultKind::kill_slow:
      return victims_.agent.kill_slowly(fault.lasts);
  }
}

}  // namespace chainpump::sim
