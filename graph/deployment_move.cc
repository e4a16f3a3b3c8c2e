// How a rank's place is given to another process: graph/rank_move.h has the table.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "graph/deployment.h"

namespace chainpump::graph {

using MoveState = RankMove::State;

bool Deployment::is_moving(ProcessId process) const {
  if (!move_) return false;
  // Of one that has left its place nothing is expected any more.
  return process == move_->to || (process == move_->from && move_->state != MoveState::switched);
}

// A standby that has loaded; else the spare.
ProcessId Deployment::newcomer_for(RankId place) const {
  const Process* spare = nullptr;
  for (const Process& process : processes_) {
    if (process.is_spare) spare = &process;
    const bool stands_by = process.is_standby && process.place == place;
    if (stands_by && process.state == State::loaded) return id_of(process);
  }
  CHECK(spare != nullptr);
  return id_of(*spare);
}

Status Deployment::may_move(RankId place) const {
  if (phase_ != Phase::serving || !has_served_)
    return make_error(ErrorCode::overloaded, "the deployment does not serve");
  if (place.value >= places_.size())
    return make_error(ErrorCode::not_found, "there is no rank {}: they are 0 to {}", place,
                      places_.size() - 1);
  const Place& at = places_[place.value];
  if (move_)
    return make_error(ErrorCode::overloaded, "{} is being moved; one at a time",
                      places_[move_->place.value].name);
  for (const LaneId lane : at.lanes)
    if (state(lane) != LaneRepair::State::serving)
      return make_error(ErrorCode::overloaded, "{} is being repaired", at.name);
  const Process& newcomer = Deployment::at(newcomer_for(place));
  if (newcomer.is_spare && newcomer.state != State::gone)
    return make_error(ErrorCode::overloaded, "what was moved last has not ended yet");
  if (newcomer.is_spare && has_nodes_)
    return make_error(
        ErrorCode::unimplemented,
        "{} has no standby that has loaded, and where there are nodes a rank moves to "
        "one only",
        at.name);
  return ok_status();
}

void Deployment::on(const MoveRequested& event, TimePoint now, Actions& actions) {
  CHECK(may_move(event.place).ok());
  const ProcessId to = newcomer_for(event.place);
  move_ = RankMove{.number = ++num_moves_,
                   .place = event.place,
                   .from = places_[event.place.value].process,
                   .to = to};
  Process& newcomer = at(to);
  if (!newcomer.is_spare) return begin_copy(now, actions);
  newcomer.place = event.place;
  spawn(newcomer, now, actions);
}

void Deployment::begin_copy(TimePoint now, Actions& actions) {
  at(move_->to).is_left_over = true;
  move_->state = MoveState::preparing;
  move_->deadline = now + limits_.move.prepare_max;
  actions.push_back({.kind = ActionKind::take_in,
                     .process = move_->to,
                     .place = move_->place,
                     .move = move_->number});
}

void Deployment::on(const TakingIn& event, TimePoint now, Actions& actions) {
  if (!is_at(MoveState::preparing, event.move)) return;
  move_->state = MoveState::copying;
  move_->deadline = now + limits_.move.copy_silence_max;
  actions.push_back({.kind = ActionKind::copy,
                     .process = move_->from,
                     .place = move_->place,
                     .newcomer = move_->to,
                     .move = move_->number});
}

void Deployment::on(const CopyProgressed& event, TimePoint now, Actions&) {
  if (!is_at(MoveState::copying, event.move)) return;
  move_->deadline = now + limits_.move.copy_silence_max;
}

void Deployment::on(const Copied& event, TimePoint now, Actions& actions) {
  if (!is_at(MoveState::copying, event.move)) return;
  const Place& place = places_[move_->place.value];
  // A repair of theirs would have ended the move; so they serve.
  RankMove move = *std::exchange(move_, std::nullopt);
  begin_repair(place.lanes, now, actions);
  for (const LaneId lane : place.lanes) at(lane).wait_for_next(place.stage);
  move.state = MoveState::fencing;
  move.deadline.reset();  // lanes have their own
  move.epoch = epoch_;
  move_ = std::move(move);
}

void Deployment::note_fenced(const Fenced& event, TimePoint now, Actions& actions) {
  if (!move_ || event.epoch != move_->epoch) return;
  const bool is_awaited = (move_->state == MoveState::fencing && event.process == move_->from) ||
                          (move_->state == MoveState::reporting && event.process == move_->to);
  const std::vector<LaneId>& lanes = places_[move_->place.value].lanes;
  std::vector<LaneId>& fenced = move_->fenced;
  const auto among = [&](const std::vector<LaneId>& list) {
    return std::find(list.begin(), list.end(), event.lane) != list.end();
  };
  if (!is_awaited || !among(lanes) || among(fenced)) return;
  fenced.push_back(event.lane);
  if (fenced.size() != lanes.size()) return;
  fenced.clear();
  if (move_->state == MoveState::reporting) return hand_over(now);
  move_->state = MoveState::finishing;
  move_->deadline = now + limits_.move.rest_max;
  actions.push_back({.kind = ActionKind::finish,
                     .process = move_->from,
                     .place = move_->place,
                     .move = move_->number});
}

void Deployment::on(const Finished& event, TimePoint now, Actions& actions) {
  if (!is_at(MoveState::finishing, event.move)) return;
  move_->state = MoveState::reporting;
  move_->deadline = now + limits_.move.rest_max;
  for (const LaneId lane : places_[move_->place.value].lanes)
    actions.push_back({.kind = ActionKind::fence,
                       .process = move_->to,
                       .place = move_->place,
                       .lane = lane,
                       .epoch = move_->epoch});
}

void Deployment::on(const MoveFailed& event, TimePoint now, Actions& actions) {
  if (!move_ || move_->number != event.move || move_->state == MoveState::switched) return;
  give_up_move(
      make_error(event.error.code, "{}: {}", name_of(at(event.process)), event.error.message), now,
      actions);
}

/// It reports what it holds: from here on the place is its own.
void Deployment::hand_over(TimePoint now) {
  Place& place = places_[move_->place.value];
  Process& from = at(move_->from);
  Process& to = at(move_->to);
  from.is_standby = std::exchange(to.is_standby, false);
  from.is_spare = std::exchange(to.is_spare, false);
  from.suspicion.reset();
  to.is_left_over = false;
  from.is_left_over = true;
  place.process = move_->to;
  move_->state = MoveState::switched;
  move_->deadline.reset();
  for (const LaneId lane : place.lanes) at(lane).hand_over(place.stage, now);
}

void Deployment::look_at_move(TimePoint now, Actions& actions) {
  if (!move_ || !is_over(move_->deadline, now)) return;
  const char* const doing = move_->state == MoveState::preparing ? "prepare for its copy"
                            : move_->state == MoveState::copying ? "copy what it holds"
                                                                 : "copy the rest";
  give_up_move(make_error(ErrorCode::deadline_exceeded, "{} did not {} in time",
                          places_[move_->place.value].name, doing),
               now, actions);
}

void Deployment::end_move_when_served(TimePoint now, Actions& actions) {
  if (!move_ || move_->state != MoveState::switched) return;
  const std::vector<LaneId>& lanes = places_[move_->place.value].lanes;
  if (!std::all_of(lanes.begin(), lanes.end(),
                   [&](LaneId lane) { return state(lane) == LaneRepair::State::serving; }))
    return;
  const RankMove move = *std::exchange(move_, std::nullopt);
  release(at(move.from), now, actions);
  actions.push_back({.kind = ActionKind::moved, .process = move.to, .place = move.place});
}

void Deployment::give_up_move(Error why, TimePoint now, Actions& actions) {
  const RankMove move = *std::exchange(move_, std::nullopt);
  const Place& place = places_[move.place.value];
  if (move.state == MoveState::switched) {
    release(at(move.from), now, actions);
  } else {
    release(at(move.to), now, actions);
    for (const LaneId lane : place.lanes) at(lane).keep(place.stage, now);
  }
  actions.push_back({.kind = ActionKind::not_moved,
                     .process = move.from,
                     .place = move.place,
                     .error = std::move(why)});
}

/// For no fault of its own.
void Deployment::release(Process& process, TimePoint now, Actions& actions) {
  if (!is_up(process)) return;
  process.is_released = true;
  process.suspicion.reset();
  process.state = State::ending;
  process.deadline = now + limits_.end_max;
  process.killed_because =
      make_error(ErrorCode::cancelled, "{} is not needed any more", name_of(process));
  actions.push_back({.kind = ActionKind::kill, .process = id_of(process)});
}

void Deployment::on_released_exit(Process& process, TimePoint now, Actions& actions) {
  process.is_released = false;
  if (process.is_standby) spawn(process, now, actions);
}

}  // namespace chainpump::graph
