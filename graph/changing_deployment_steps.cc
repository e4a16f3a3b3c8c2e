// A change of plan step by step, up to the switch: graph/changing_deployment.h has the table.
#include <algorithm>
#include <utility>

#include "graph/changing_deployment.h"

namespace chainpump::graph {

void ChangingDeployment::take_in(TimePoint now, Actions& all) {
  if (change_->next->numerics_id() != now_->numerics_id())
    return give_up(make_error(ErrorCode::invalid_argument,
                              "the new ranks compute as {}, those that serve as {}",
                              change_->next->numerics_id(), now_->numerics_id()),
                   now, all);
  await(State::preparing, now + limits_.move.prepare_max);
  ask_parts(ActionKind::take_in, now, all);
}

/// Of each part, one of its two ends.
void ChangingDeployment::ask_parts(ActionKind kind, TimePoint now, Actions& all) {
  const bool of_new = kind == ActionKind::take_in;
  for (uint32_t part = 0; part < change_->routes.size(); ++part) {
    const KvRoute& route = change_->routes[part];
    const auto parts = std::count_if(change_->routes.begin(), change_->routes.end(),
                                     [&](const KvRoute& other) { return other.to == route.to; });
    const ProcessId from = now_->process_in(route.from);
    const ProcessId to = change_->next->process_in(route.to);
    all.push_back({.kind = kind,
                   .process = of_new ? to : from,
                   .place = of_new ? route.to : route.from,
                   .newcomer = to,
                   .move = change_->number,
                   .route = route,
                   .part = part,
                   .parts = static_cast<uint32_t>(parts)});
    change_->awaited.emplace(of_new ? to : from, part);
  }
  go_on_if_all_came(now, all);
}

void ChangingDeployment::on_change_event(const Event& event, TimePoint now, Actions& all) {
  if (const auto* taking = std::get_if<Deployment::TakingIn>(&event))
    return note(taking->process, taking->part, State::preparing, now, all);
  if (const auto* copied = std::get_if<Deployment::Copied>(&event))
    return note(copied->process, copied->part, State::copying, now, all);
  if (const auto* finished = std::get_if<Deployment::Finished>(&event))
    return note(finished->process, 0, State::finishing, now, all);
  if (std::holds_alternative<Deployment::CopyProgressed>(event) && change_->state == State::copying)
    change_->deadline = now + limits_.move.copy_silence_max;
  const auto* failed = std::get_if<Deployment::MoveFailed>(&event);
  if (failed != nullptr && change_->state != State::switched) give_up(failed->error, now, all);
}

/// What was awaited in this state of this process.
void ChangingDeployment::note(ProcessId process, uint32_t what, State state, TimePoint now,
                              Actions& all) {
  if (!change_ || change_->state != state || change_->awaited.erase({process, what}) == 0) return;
  go_on_if_all_came(now, all);
}

void ChangingDeployment::go_on_if_all_came(TimePoint now, Actions& all) {
  if (change_->awaited.empty()) go_on(now, all);
}

/// All that was awaited has come.
void ChangingDeployment::go_on(TimePoint now, Actions& all) {
  switch (change_->state) {
    case State::preparing:
      await(State::copying, now + limits_.move.copy_silence_max);
      return ask_parts(ActionKind::copy, now, all);
    case State::copying:
      return begin_handover(now, all);
    case State::fencing:
      return finish(now, all);
    case State::finishing:
      return fence_new(now, all);
    case State::reporting:
      return switch_over(now, all);
    case State::starting:
    case State::switched:
      break;
  }
}

void ChangingDeployment::begin_handover(TimePoint now, Actions& all) {
  if (!now_->all_serve())
    return give_up(make_error(ErrorCode::overloaded, "something has to be repaired first"), now,
                   all);
  await(State::fencing, std::nullopt);  // lanes have their own
  for (uint32_t rank = 0; rank < static_cast<uint32_t>(num_ranks(plan_)); ++rank)
    for (const LaneId lane : lanes_of(plan_, RankId(rank)))
      change_->awaited.emplace(now_->process_in(RankId(rank)), lane.value);
  take(all, now_->begin_handover(now), now);
  change_->epoch = now_->epoch(LaneId(0));
}

void ChangingDeployment::finish(TimePoint now, Actions& all) {
  await(State::finishing, now + limits_.move.rest_max);
  for (const KvRoute& route : change_->routes) {
    const ProcessId from = now_->process_in(route.from);
    if (!change_->awaited.emplace(from, 0).second) continue;
    all.push_back({.kind = ActionKind::finish,
                   .process = from,
                   .place = route.from,
                   .move = change_->number});
  }
  go_on_if_all_came(now, all);
}

void ChangingDeployment::fence_new(TimePoint now, Actions& all) {
  await(State::reporting, now + limits_.move.rest_max);
  for (const KvRoute& route : change_->routes)
    for (const LaneId lane : route.lanes) {
      const ProcessId to = change_->next->process_in(route.to);
      if (!change_->awaited.emplace(to, lane.value).second) continue;
      all.push_back({.kind = ActionKind::fence,
                     .process = to,
                     .place = route.to,
                     .lane = lane,
                     .epoch = change_->epoch});
    }
  go_on_if_all_came(now, all);
}

/// They have said what they hold: from here on the lanes are theirs.
void ChangingDeployment::switch_over(TimePoint now, Actions& all) {
  await(State::switched, std::nullopt);
  Actions first = change_->next->take_over_from(*now_, change_->epoch, now);
  take(all, now_->let_go(now), now);
  now_.swap(change_->next);
  plan_ = change_->plan;
  ++plan_number_;
  all.push_back({.kind = ActionKind::switched});
  take(all, std::move(first), now);
}

}  // namespace chainpump::graph
