// What a deployment does when something has gone: who takes a place, and what its lanes do then.
#include <algorithm>
#include <utility>

#include "graph/deployment.h"

namespace chainpump::graph {
namespace {

Error named(const std::string& name, const Error& error) {
  return make_error(error.code, "{}: {}", name, error.message);
}

/// "1st", "2nd", "3rd", "4th", "11th", "21st".
std::string ordinal(size_t n) {
  const bool teen = n / 10 % 10 == 1;
  const char* const end = teen          ? "th"
                          : n % 10 == 1 ? "st"
                          : n % 10 == 2 ? "nd"
                          : n % 10 == 3 ? "rd"
                                        : "th";
  return fmt::format("{}{}", n, end);
}

std::string text_of(Duration window) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(window).count();
  return ms % 1000 == 0 ? fmt::format("{} s", ms / 1000) : fmt::format("{} ms", ms);
}

}  // namespace

// -------------------------------------------------------------------------------- lanes

void Deployment::on(const Fenced& event, TimePoint now, Actions& actions) {
  if (const auto stage = stage_in(event.lane, event.process))
    at(event.lane).on_fenced(*stage, event.epoch, now);
  note_fenced(event, now, actions);
}

void Deployment::on(const Connected& event, TimePoint now, Actions&) {
  const auto stage = stage_in(event.lane, event.process);
  if (!stage || phase_ == Phase::stopping || phase_ == Phase::stopped) return;
  at(event.lane).on_connected(*stage, event.epoch, now);
  if (phase_ != Phase::starting) return;
  if (!std::all_of(lanes_.begin(), lanes_.end(),
                   [](const LaneRepair& lane) { return lane.all_connected(); }))
    return;
  for (LaneRepair& lane : lanes_) lane.serve();
  phase_ = Phase::serving;
}

void Deployment::on(const Resumed& event, TimePoint, Actions&) {
  at(event.lane).on_resumed(event.epoch);
}

void Deployment::on(const CallFailed& event, TimePoint now, Actions& actions) {
  const auto stage = stage_in(event.lane, event.process);
  if (!stage) return;
  if (phase_ == Phase::starting && event.error.code != ErrorCode::disconnected)
    return fail(named(name_of(at(event.process)), event.error), now, actions);
  at(event.lane).on_call_failed(*stage, event.epoch, event.error, now);
}

void Deployment::begin_repair(const std::vector<LaneId>& lanes, TimePoint now, Actions& actions) {
  epoch_ = PlanEpoch(epoch_.value + 1);
  for (const LaneId lane : lanes) {
    at(lane).begin(epoch_, now);
    // Whose links broke meanwhile was told of this end. What broke besides is told again.
    for (const RankId rank : ranks_[lane.value]) {
      Process& process = at(places_[rank.value].process);
      if (process.suspicion && process.suspicion->of_link) process.suspicion.reset();
    }
  }
  if (!move_ || move_->state == RankMove::State::switched) return;
  const std::vector<LaneId>& moving = places_[move_->place.value].lanes;
  const bool disturbs = std::any_of(lanes.begin(), lanes.end(), [&](LaneId lane) {
    return std::find(moving.begin(), moving.end(), lane) != moving.end();
  });
  if (disturbs)
    give_up_move(make_error(ErrorCode::overloaded, "something else has to be repaired first"), now,
                 actions);
}

void Deployment::pass_on_asks(TimePoint now, Actions& actions) {
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const LaneId lane(static_cast<uint8_t>(i));
    for (const LaneRepair::Ask& ask : at(lane).take_asks()) {
      if (phase_ == Phase::stopping || phase_ == Phase::stopped) continue;
      Action action{.kind = ActionKind::fence,
                    .process = id_of(in(lane, ask.stage)),
                    .place = ranks_[i][static_cast<size_t>(ask.stage.value)],
                    .lane = lane,
                    .epoch = at(lane).epoch()};
      switch (ask.kind) {
        case LaneRepair::AskKind::fence:
          break;
        case LaneRepair::AskKind::connect:
          action.kind = ActionKind::connect;
          break;
        case LaneRepair::AskKind::resume:
          action.kind = ActionKind::resume;
          break;
        case LaneRepair::AskKind::serving:
          action.kind = ActionKind::lane_serving;
          action.first_since = at(lane).first_since();
          break;
      }
      actions.push_back(std::move(action));
    }
  }
  if (phase_ == Phase::serving) serve_when_all_do(actions);
  end_move_when_served(now, actions);
}

void Deployment::look_at(LaneId lane, TimePoint now, Actions& actions) {
  if (phase_ != Phase::starting && phase_ != Phase::serving) return;
  at(lane).on_time(now);
  for (const StageIndex stage : at(lane).take_hung()) {
    Process& process = in(lane, stage);
    end_process(process,
                make_error(ErrorCode::deadline_exceeded,
                           "{} hung: it did not answer during a repair", name_of(process)),
                now, actions);
  }
  const auto trouble = at(lane).take_must_begin_anew();
  if (!trouble) return;
  const Error why{trouble->error.code, name_of(in(lane, trouble->stage)) + trouble->error.message};
  if (phase_ == Phase::starting) return fail(why, now, actions);
  if (may_repair(why, "a rank or link", now, actions)) begin_repair({lane}, now, actions);
}

// -------------------------------------------------------------------------------- a process goes

void Deployment::on(const LinkBroken& event, TimePoint now, Actions&) {
  Process& process = at(event.process);
  if (process.state != State::loaded || !is_in_place(process) || process.suspicion) return;
  // Then it is one of that lane's, and what is broken of another one is told again afterwards.
  for (const LaneId lane : place_of(process).lanes)
    if (phase_ == Phase::serving && at(lane).state() != LaneRepair::State::serving) return;
  const Duration news_max = event.is_no_death ? Duration(0) : limits_.repair.death_news_max;
  process.suspicion = {now + news_max, event.error, true};
}

void Deployment::on(const Unreachable& event, TimePoint now, Actions&) {
  Process& process = at(event.process);
  if (!is_up(process)) return;
  TimePoint deadline = now + limits_.repair.death_news_max;
  if (process.suspicion) deadline = std::min(deadline, process.suspicion->deadline);
  process.suspicion = {deadline, event.error, false};
}

void Deployment::on(const Failed& event, TimePoint now, Actions& actions) {
  Process& process = at(event.process);
  if (!is_up(process)) return;
  Error error = named(name_of(process), event.error);
  if (process.is_spare) return end_process(process, std::move(error), now, actions);
  if (phase_ == Phase::starting || max_restarts_ == 0) return fail(std::move(error), now, actions);
  end_process(process, std::move(error), now, actions);
}

void Deployment::end_process(Process& process, Error why, TimePoint now, Actions& actions) {
  process.state = State::ending;
  process.deadline = now + limits_.end_max;
  process.suspicion.reset();
  process.killed_because = why;
  actions.push_back({.kind = ActionKind::kill, .process = id_of(process)});
  if (is_in_place(process)) {
    const Place& place = place_of(process);
    for (const LaneId lane : place.lanes) at(lane).leave(place.stage);
  }
  if (is_moving(id_of(process))) give_up_move(std::move(why), now, actions);
}

void Deployment::on(const Exited& event, TimePoint now, Actions& actions) {
  Process& process = at(event.process);
  if (process.state == State::gone) return;
  const Error why = process.killed_because.value_or(
      make_error(ErrorCode::disconnected, "{} died: {}", name_of(process), event.how));
  process.state = State::gone;
  process.deadline.reset();
  process.suspicion.reset();
  switch (phase_) {
    case Phase::starting:
      return fail(why, now, actions);
    case Phase::serving:
      if (is_moving(event.process)) give_up_move(why, now, actions);
      if (process.is_released || process.is_spare) return on_released_exit(process, now, actions);
      if (may_repair(why, "a rank", now, actions)) replace(process, why, now, actions);
      return;
    case Phase::stopping:
      return check_stopped(actions);
    case Phase::stopped:
      return;
  }
}

void Deployment::on(const NotStarted& event, TimePoint now, Actions& actions) {
  Process& process = at(event.process);
  if (process.state == State::gone) return;
  if (process.is_spare && phase_ == Phase::serving) {
    process.state = State::gone;
    process.deadline.reset();
    if (is_moving(event.process)) give_up_move(named(name_of(process), event.error), now, actions);
    return;
  }
  const Error why = process.end_before.empty()
                        ? named(name_of(process), event.error)
                        : make_error(event.error.code, "{}; another cannot be started: {}",
                                     process.end_before, event.error.message);
  process.state = State::gone;
  process.deadline.reset();
  fail(why, now, actions);
  if (phase_ == Phase::stopping) check_stopped(actions);
}

void Deployment::on(const Delayed& event, TimePoint now, Actions& actions) {
  Process& process = at(event.process);
  if (process.state != State::starting) return;
  if (phase_ == Phase::starting) return fail(named(name_of(process), event.error), now, actions);
  if (process.is_spare)
    return end_process(process, named(name_of(process), event.error), now, actions);
  const bool is_news = !process.delayed_because;
  process.delayed_because = event.error;
  if (!is_news) return;
  process.deadline.reset();
  if (!process.is_standby) process.deadline = now + limits_.delay_max;
}

/// It has loaded, and the place of its stage is waited for.
void Deployment::take_place_of_delayed(Process& standby) {
  Place& place = place_of(standby);
  Process& holder = at(place.process);
  if (!holder.delayed_because) return;
  holder.is_standby = true;
  holder.deadline.reset();
  standby.is_standby = false;
  place.process = id_of(standby);
}

bool Deployment::may_lose_one(TimePoint now) const {
  const auto is_recent = [&](TimePoint end) { return now - end <= ends_.window(); };
  const auto num_recent = std::count_if(ends_.times().begin(), ends_.times().end(), is_recent);
  const bool awaits = std::any_of(processes_.begin(), processes_.end(), [](const Process& process) {
    return process.state == State::ending;
  });
  return phase_ == Phase::serving && !awaits && static_cast<size_t>(num_recent) < max_restarts_;
}

bool Deployment::may_repair(const Error& why, const char* what, TimePoint now, Actions& actions) {
  if (max_restarts_ == 0) {
    fail(why, now, actions);
    return false;
  }
  const size_t num_ends = ends_.add(now);
  if (num_ends <= max_restarts_) {
    actions.push_back({.kind = ActionKind::repairing, .error = why});
    return true;
  }
  fail(make_error(why.code, "{}; that is the {} end of {} within {} (failover.restarts: {})",
                  why.message, ordinal(num_ends), what, text_of(ends_.window()), max_restarts_),
       now, actions);
  return false;
}

void Deployment::replace(Process& gone, const Error& why, TimePoint now, Actions& actions) {
  if (gone.is_standby) {
    spawn(gone, now, actions);
    gone.end_before = why.message;
    return;
  }
  Place& place = place_of(gone);
  for (const LaneId lane : place.lanes) at(lane).leave(place.stage);
  // One that has loaded, else one that is on its way.
  Process* next = nullptr;
  for (Process& other : processes_) {
    if (!other.is_standby || other.place != gone.place || !is_up(other) || other.delayed_because)
      continue;
    if (next == nullptr || (next->state != State::loaded && other.state == State::loaded))
      next = &other;
  }
  if (next != nullptr) {
    next->is_standby = false;
    place.process = id_of(*next);
    gone.is_standby = true;
    if (next->state == State::loaded) take_place(*next);
  }
  spawn(gone, now, actions);
  gone.end_before = why.message;
  begin_repair(place.lanes, now, actions);
}

void Deployment::on_unexplained(const Process& process, const Suspicion& news, TimePoint now,
                                Actions& actions) {
  if (!news.of_link) return on(Failed{id_of(process), news.error}, now, actions);
  const Error why = named(name_of(process), news.error);
  if (phase_ == Phase::starting) return fail(why, now, actions);
  if (may_repair(why, "a rank or link", now, actions))
    begin_repair(places_[process.place.value].lanes, now, actions);
}

}  // namespace chainpump::graph
