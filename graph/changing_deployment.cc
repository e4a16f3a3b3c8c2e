#include "graph/changing_deployment.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace chainpump::graph {
namespace {

// A rank knows the copies of a change from those of a move.
constexpr uint32_t kFirstChange = uint32_t{1} << 31;

template <typename E>
std::optional<ProcessId> process_of(const E& event) {
  if constexpr (requires { event.process; })
    return event.process;
  else
    return std::nullopt;
}

template <typename E>
std::optional<uint32_t> move_of(const E& event) {
  if constexpr (requires { event.move; })
    return event.move;
  else
    return std::nullopt;
}

}  // namespace

ChangingDeployment::ChangingDeployment(const Plan& plan, const DeploymentLimits& limits,
                                       const DeploymentRecord& before)
    : limits_(limits),
      plan_(plan),
      plan_number_(before.plan_number),
      now_(std::make_unique<Deployment>(plan, limits, before.first_number)) {}

// -------------------------------------------------------------------------------- who is who

const Plan& ChangingDeployment::plan_of(ProcessId process) const {
  return change_ && change_->next->owns(process) && change_->state != State::switched
             ? change_->plan
             : plan_;
}

bool ChangingDeployment::is_wanted(ProcessId process) const {
  const auto wants = [&](const Deployment* deployment) {
    return deployment != nullptr && deployment->owns(process) &&
           (deployment->phase() == Phase::starting || deployment->phase() == Phase::serving);
  };
  return wants(now_.get()) || (change_ && wants(change_->next.get()));
}

uint32_t ChangingDeployment::end_of_numbers() const {
  uint32_t end = 0;
  const auto consider = [&](const Deployment* deployment) {
    if (deployment != nullptr) end = std::max(end, deployment->end_of_numbers());
  };
  consider(now_.get());
  consider(retiring_.get());
  if (change_) consider(change_->next.get());
  return end;
}

ChangingDeployment::Phase ChangingDeployment::phase() const {
  const bool others_end = change_ || retiring_ || strangers_due_;
  return now_->phase() == Phase::stopped && others_end ? Phase::stopping : now_->phase();
}

DeploymentRecord ChangingDeployment::record() const {
  DeploymentRecord record = now_->record();
  record.plan_number = plan_number_;
  return record;
}

std::optional<TimePoint> ChangingDeployment::next_deadline() const {
  std::optional<TimePoint> next = now_->next_deadline();
  const auto consider = [&](const std::optional<TimePoint>& deadline) {
    if (deadline && (!next || *deadline < *next)) next = deadline;
  };
  if (retiring_) consider(retiring_->next_deadline());
  if (change_) consider(change_->next->next_deadline());
  if (change_) consider(change_->deadline);
  consider(strangers_due_);
  return next;
}

/// Of an event that concerns no process: the one in force; null: nobody's.
Deployment* ChangingDeployment::owner_of(const Event& event) {
  const auto process = std::visit([](const auto& e) { return process_of(e); }, event);
  if (!process || now_->owns(*process)) return now_.get();
  if (change_ && change_->next->owns(*process)) return change_->next.get();
  if (retiring_ && retiring_->owns(*process)) return retiring_.get();
  return nullptr;
}

// -------------------------------------------------------------------------------- the shell's

ChangingDeployment::Actions ChangingDeployment::adopt(const DeploymentRecord& record,
                                                      const std::vector<ProcessId>& living,
                                                      TimePoint now) {
  Actions all;
  std::vector<ProcessId> own;
  for (const ProcessId process : living)
    if (now_->owns(process))
      own.push_back(process);
    else
      strangers_.insert(process);
  strangers_until_ = now + limits_.end_max;
  kill_strangers(now, all);
  take(all, now_->adopt(record, own, now), now);
  return all;
}

ChangingDeployment::Actions ChangingDeployment::step(const Event& event, TimePoint now) {
  Actions all;
  const auto number = std::visit([](const auto& e) { return move_of(e); }, event);
  if (number && *number >= kFirstChange) {
    if (change_ && *number == change_->number) on_change_event(event, now, all);
    return all;
  }
  Deployment* const owner = owner_of(event);
  if (const auto* exited = std::get_if<Deployment::Exited>(&event)) {
    strangers_.erase(exited->process);
    if (strangers_.empty()) strangers_due_.reset();
  }
  if (owner == nullptr) {
    look_after(now, all);
    return all;
  }
  take(all, owner->step(event, now), now);
  if (const auto* fenced = std::get_if<Deployment::Fenced>(&event);
      fenced != nullptr && change_ && fenced->epoch == change_->epoch) {
    const bool is_new = owner != now_.get();
    note(fenced->process, fenced->lane.value, is_new ? State::reporting : State::fencing, now, all);
  }
  look_after(now, all);
  return all;
}

ChangingDeployment::Actions ChangingDeployment::on_time(TimePoint now) {
  Actions all;
  take(all, now_->on_time(now), now);
  if (change_) take(all, change_->next->on_time(now), now);
  if (retiring_) take(all, retiring_->on_time(now), now);
  look_at_deadline(now, all);
  if (strangers_due_ && now >= *strangers_due_) kill_strangers(now, all);
  look_after(now, all);
  return all;
}

/// Until they have gone, or there is no hope: it may not have been done when it was said.
void ChangingDeployment::kill_strangers(TimePoint now, Actions& all) {
  strangers_due_.reset();
  if (!strangers_.empty() && now < strangers_until_) strangers_due_ = now + limits_.leave_max;
  for (const ProcessId process : strangers_)
    all.push_back({.kind = ActionKind::kill, .process = process});
}

ChangingDeployment::Actions ChangingDeployment::passed_on(Actions actions, TimePoint now) {
  Actions all;
  take(all, std::move(actions), now);
  return all;
}

/// What one of them asks for, but for what it only says to this one.
void ChangingDeployment::take(Actions& all, Actions more, TimePoint now) {
  std::optional<Error> failed;
  bool ready = false;
  for (Action& action : more) {
    const bool is_next =
        change_ && change_->state != State::switched && change_->next->owns(action.process);
    switch (action.kind) {
      case ActionKind::ready:
        ready = true;
        break;
      case ActionKind::stopped:
        break;  // look_after()
      case ActionKind::fail:
        // Only that of the change names no process of the one in force.
        if (change_ && change_->state != State::switched &&
            change_->next->phase() != Phase::starting && now_->phase() == Phase::serving)
          failed = action.error;
        else
          all.push_back(std::move(action));
        break;
      default:
        if (is_next && action.kind == ActionKind::repairing) break;
        all.push_back(std::move(action));
    }
  }
  if (failed && change_) give_up(*failed, now, all);
  if (ready && change_) take_in(now, all);
}

Status ChangingDeployment::may_move(RankId place) const {
  if (change_ || retiring_)
    return make_error(ErrorCode::overloaded, "the deployment is being changed to another plan");
  return now_->may_move(place);
}

Status ChangingDeployment::may_change(const Plan& next) const {
  if (change_) return make_error(ErrorCode::overloaded, "the deployment is being changed already");
  if (!is_settled())
    return make_error(ErrorCode::overloaded, "what was changed last has not ended yet");
  RETURN_IF_ERROR(graph::may_change(plan_, next));
  if (now_->move()) return make_error(ErrorCode::overloaded, "a rank is being moved");
  if (!now_->all_serve()) return make_error(ErrorCode::overloaded, "something is being repaired");
  return ok_status();
}

ChangingDeployment::Actions ChangingDeployment::change(const Plan& next, TimePoint now) {
  CHECK(may_change(next).ok());
  Actions all;
  if (!ranks_differ(plan_, next)) {
    plan_ = next;
    now_->take_limits_of(next);
    ++plan_number_;
    all.push_back({.kind = ActionKind::switched});
    all.push_back({.kind = ActionKind::changed});
    return all;
  }
  const auto room = static_cast<uint32_t>(num_numbers(next));
  const uint32_t first = room <= now_->first_number() ? 0 : now_->end_of_numbers();
  change_ =
      std::make_unique<Change>(Change{.number = kFirstChange + ++num_changes_,
                                      .plan = next,
                                      .next = std::make_unique<Deployment>(next, limits_, first),
                                      .routes = kv_routes(plan_, next)});
  take(all, change_->next->start_beside(now), now);
  return all;
}

// -------------------------------------------------------------------------------- and its end

/// What has come of a step, of any of them.
void ChangingDeployment::look_after(TimePoint now, Actions& all) {
  if (change_ && change_->state == State::switched) {
    // Whatever becomes of the new one: it serves, or it ends.
    const bool ends = now_->phase() != Phase::serving;
    if (ends || now_->all_serve()) {
      const std::unique_ptr<Change> done = std::move(change_);
      retire(std::move(done->next), now, all);
      if (ends)
        all.push_back({.kind = ActionKind::not_changed,
                       .error = make_error(ErrorCode::cancelled, "the deployment ends")});
      else
        all.push_back({.kind = ActionKind::changed});
    }
  } else if (change_ && now_->phase() != Phase::serving) {
    give_up(make_error(ErrorCode::cancelled, "the deployment ends"), now, all);
  } else if (change_ && is_disturbed()) {
    give_up(make_error(ErrorCode::overloaded, "something else has to be repaired first"), now, all);
  }
  if (retiring_ && retiring_->phase() == Phase::stopped) retiring_.reset();
  if (phase() == Phase::stopped && !std::exchange(told_stopped_, true))
    all.push_back({.kind = ActionKind::stopped});
}

/// A lane of the one in force does not do what the change expects of it.
bool ChangingDeployment::is_disturbed() const {
  const bool hands_over = change_->state >= State::fencing;
  for (int32_t i = 0; i < num_lanes(plan_); ++i) {
    const LaneId lane(static_cast<uint8_t>(i));
    const LaneRepair::State state = now_->state(lane);
    if (!hands_over && state != LaneRepair::State::serving) return true;
    if (hands_over && (state != LaneRepair::State::fencing || now_->epoch(lane) != change_->epoch))
      return true;
  }
  return false;
}

void ChangingDeployment::look_at_deadline(TimePoint now, Actions& all) {
  if (!change_ || !change_->deadline || now < *change_->deadline) return;
  if (now - *change_->deadline > limits_.repair.late_look_max) {  // it was stopped, or starved
    change_->deadline = now + limits_.repair.late_look_max;
    return;
  }
  const char* const doing = change_->state == State::preparing ? "prepare for the copy"
                            : change_->state == State::copying ? "copy what they hold"
                                                               : "copy the rest";
  give_up(make_error(ErrorCode::deadline_exceeded, "the ranks did not {} in time", doing), now,
          all);
}

void ChangingDeployment::give_up(const Error& why, TimePoint now, Actions& all) {
  const std::unique_ptr<Change> change = std::move(change_);
  retire(std::move(change->next), now, all);
  if (change->state >= State::fencing && now_->phase() == Phase::serving)
    take(all, now_->keep_lanes(now), now);
  all.push_back({.kind = ActionKind::not_changed, .error = why});
}

void ChangingDeployment::retire(std::unique_ptr<Deployment> old, TimePoint now, Actions& all) {
  CHECK(!retiring_);
  retiring_ = std::move(old);
  take(all, retiring_->retire(now), now);
}

}  // namespace chainpump::graph
