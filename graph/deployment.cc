#include "graph/deployment.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace chainpump::graph {
namespace {

/// A rank opens the links of its lanes one after the other.
DeploymentLimits with_time_for(const Plan& plan, DeploymentLimits limits) {
  limits.repair.connect_max += (lanes_per_rank_max(plan) - 1) * limits.repair.connect_more;
  return limits;
}

}  // namespace

Deployment::Deployment(const Plan& plan, const DeploymentLimits& limits, uint32_t first_number)
    : limits_(with_time_for(plan, limits)),
      first_number_(first_number),
      max_restarts_(static_cast<size_t>(std::max(0, plan.failover_restarts))),
      has_nodes_(!nodes_of(plan, ProcessId(0)).empty()),
      epoch_(plan.epoch),
      ends_(plan.failover_window) {
  CHECK_GT(num_ranks(plan), 0);
  const auto num_places = static_cast<uint32_t>(num_ranks(plan));
  for (uint32_t i = 0; i < num_places; ++i) {
    const RankId rank(i);
    places_.push_back({.name = rank_name(plan, rank),
                       .stage = graph::place_of(plan, rank).stage,
                       .lanes = lanes_of(plan, rank),
                       .process = ProcessId(first_number + i)});
    processes_.push_back({.place = rank});
  }
  for (const StagePlan& stage : plan.stages)
    for (int32_t i = 0; i < stage.standbys; ++i)
      processes_.push_back({.place = rank_at(plan, LaneId(0), stage.index), .is_standby = true});
  processes_.push_back({.place = RankId(0), .is_spare = true, .state = State::gone});
  for (int32_t l = 0; l < num_lanes(plan); ++l) {
    lanes_.emplace_back(static_cast<int32_t>(plan.stages.size()), plan.epoch, limits_.repair);
    std::vector<RankId>& ranks = ranks_.emplace_back();
    for (const StagePlan& stage : plan.stages)
      ranks.push_back(rank_at(plan, LaneId(static_cast<uint8_t>(l)), stage.index));
  }
}

// -------------------------------------------------------------------------------- who is who

const Deployment::Process& Deployment::at(ProcessId process) const {
  CHECK(owns(process));
  return processes_[process.value - first_number_];
}

Deployment::Process& Deployment::at(ProcessId process) {
  return const_cast<Process&>(std::as_const(*this).at(process));
}

Deployment::Process& Deployment::in(LaneId lane, StageIndex stage) {
  const RankId rank = ranks_[lane.value][static_cast<size_t>(stage.value)];
  return at(places_[rank.value].process);
}

ProcessId Deployment::id_of(const Process& process) const {
  return ProcessId(first_number_ + static_cast<uint32_t>(&process - processes_.data()));
}

std::string Deployment::name_of(const Process& process) const {
  const std::string& name = places_[process.place.value].name;
  return process.is_standby ? "the standby of " + name
         : process.is_spare ? "the new rank of " + name
                            : name;
}

bool Deployment::is_up(const Process& process) const {
  return process.state == State::starting || process.state == State::loading ||
         process.state == State::loaded;
}

bool Deployment::all_in(State state) const {
  return std::all_of(processes_.begin(), processes_.end(), [&](const Process& p) {
    return p.state == state || (p.is_spare && p.state == State::gone);
  });
}

std::optional<StageIndex> Deployment::stage_in(LaneId lane, ProcessId process) const {
  const Place& place = places_[at(process).place.value];
  const bool serves = std::find(place.lanes.begin(), place.lanes.end(), lane) != place.lanes.end();
  if (!serves || place.process != process) return std::nullopt;
  return place.stage;
}

// -------------------------------------------------------------------------------- the shell's

Deployment::Actions Deployment::start(TimePoint now) {
  Actions actions;
  for (Process& process : processes_)
    if (!process.is_spare) spawn(process, now, actions);
  return actions;
}

Deployment::Actions Deployment::step(const Event& event, TimePoint now) {
  Actions actions;
  std::visit([&](const auto& e) { on(e, now, actions); }, event);
  pass_on_asks(now, actions);
  return actions;
}

Deployment::Actions Deployment::on_time(TimePoint now) {
  Actions actions;
  for (Process& process : processes_) look_at(process, now, actions);
  look_at_move(now, actions);
  for (size_t i = 0; i < lanes_.size(); ++i) look_at(LaneId(static_cast<uint8_t>(i)), now, actions);
  pass_on_asks(now, actions);
  return actions;
}

std::optional<TimePoint> Deployment::next_deadline() const {
  std::optional<TimePoint> next;
  const auto consider = [&](const std::optional<TimePoint>& deadline) {
    if (deadline && (!next || *deadline < *next)) next = deadline;
  };
  for (const Process& process : processes_) {
    consider(process.deadline);
    if (process.suspicion) consider(process.suspicion->deadline);
  }
  if (move_) consider(move_->deadline);
  if (phase_ == Phase::starting || phase_ == Phase::serving)
    for (const LaneRepair& lane : lanes_) consider(lane.next_deadline());
  return next;
}

// -------------------------------------------------------------------------------- a process comes

void Deployment::spawn(Process& process, TimePoint now, Actions& actions) {
  process = {.place = process.place,
             .is_standby = process.is_standby,
             .is_spare = process.is_spare,
             .deadline = now + limits_.greet_max};
  actions.push_back({.kind = ActionKind::spawn, .process = id_of(process)});
}

void Deployment::on(const Greeted& event, TimePoint now, Actions& actions) {
  Process& process = at(event.process);
  if (process.state != State::starting) return;
  process.state = State::loading;
  process.delayed_because.reset();
  process.deadline = now + limits_.load_silence_max;
  actions.push_back({.kind = ActionKind::load, .process = event.process, .place = process.place});
}

void Deployment::on(const LoadProgressed& event, TimePoint now, Actions&) {
  Process& process = at(event.process);
  if (process.state == State::loading) process.deadline = now + limits_.load_silence_max;
}

void Deployment::on(const Loaded& event, TimePoint now, Actions& actions) {
  Process& process = at(event.process);
  if (process.state != State::loading) return;
  process.state = State::loaded;
  process.has_loaded = true;
  process.deadline.reset();
  process.numerics_id = event.numerics_id;
  if (phase_ == Phase::starting) {
    if (!all_in(State::loaded)) return;
    if (!starts_beside_) return start_lanes(now, actions);
    if (all_compute_alike(now, actions)) actions.push_back({.kind = ActionKind::ready});
    return;
  }
  // What all others compute as; they were all loaded when the deployment began to serve, but for
  // those of a coordinator that died before that.
  if (numerics_id_.empty()) numerics_id_ = process.numerics_id;
  if (numerics_id_ != process.numerics_id)
    return end_process(process,
                       make_error(ErrorCode::internal, "{} computes as {}, all others as {}",
                                  name_of(process), process.numerics_id, numerics_id_),
                       now, actions);
  if (move_ && move_->to == event.process) return begin_copy(now, actions);
  if (process.is_standby) take_place_of_delayed(process);
  if (is_in_place(process)) take_place_again(process, event.lanes, now, actions);
}

bool Deployment::all_compute_alike(TimePoint now, Actions& actions) {
  numerics_id_ = processes_.front().numerics_id;
  for (const Process& process : processes_) {
    if (process.is_spare || process.numerics_id == numerics_id_) continue;
    fail(make_error(ErrorCode::internal, "{} computes as {}, {} as {}: a deployment needs one way",
                    name_of(processes_.front()), numerics_id_, name_of(process),
                    process.numerics_id),
         now, actions);
    return false;
  }
  return true;
}

void Deployment::start_lanes(TimePoint now, Actions& actions) {
  if (!all_compute_alike(now, actions)) return;
  for (Process& process : processes_)
    if (is_in_place(process)) take_place(process);
  for (LaneRepair& lane : lanes_) lane.start(now + limits_.connect_max);
}

void Deployment::take_place(Process& process) {
  const Place& place = place_of(process);
  for (const LaneId lane : place.lanes) at(lane).take(place.stage);
}

// -------------------------------------------------------------------------------- time

bool Deployment::is_over(std::optional<TimePoint>& deadline, TimePoint now) const {
  if (!deadline || now < *deadline) return false;
  const bool late = now - *deadline > limits_.repair.late_look_max;
  deadline.reset();
  if (late) deadline = now + limits_.repair.late_look_max;
  return !late;
}

void Deployment::look_at(Process& process, TimePoint now, Actions& actions) {
  if (process.suspicion) {
    std::optional<TimePoint> deadline = process.suspicion->deadline;
    if (is_over(deadline, now))
      on_unexplained(process, *std::exchange(process.suspicion, std::nullopt), now, actions);
    else
      process.suspicion->deadline = *deadline;
  }
  if (process.state == State::leaving && process.deadline && now >= *process.deadline) {
    process.deadline.reset();
    actions.push_back({.kind = ActionKind::kill, .process = id_of(process)});
  } else if (is_over(process.deadline, now)) {
    on_overdue(process, now, actions);
  }
}

void Deployment::on_overdue(Process& process, TimePoint now, Actions& actions) {
  if (process.state == State::ending)
    return fail(make_error(ErrorCode::deadline_exceeded, "{}; it does not end, although killed",
                           process.killed_because->message),
                now, actions);
  if (process.delayed_because)
    return fail(make_error(process.delayed_because->code, "{} cannot be started: {}",
                           name_of(process), process.delayed_because->message),
                now, actions);
  const char* doing = process.state == State::starting ? "say hello" : "load its weights";
  Error why =
      make_error(ErrorCode::deadline_exceeded, "{} did not {} in time", name_of(process), doing);
  if (phase_ == Phase::starting) return fail(std::move(why), now, actions);
  end_process(process, std::move(why), now, actions);
}

// -------------------------------------------------------------------------------- the end

void Deployment::on(const StopRequested&, TimePoint now, Actions& actions) { stop(now, actions); }

void Deployment::fail(Error error, TimePoint now, Actions& actions) {
  if (phase_ == Phase::stopping || phase_ == Phase::stopped) return;
  actions.push_back({.kind = ActionKind::fail, .error = std::move(error)});
  stop(now, actions);
}

void Deployment::stop(TimePoint now, Actions& actions, std::optional<ActionKind> how) {
  if (phase_ == Phase::stopping || phase_ == Phase::stopped) return;
  phase_ = Phase::stopping;
  if (move_)
    actions.push_back({.kind = ActionKind::not_moved,
                       .process = move_->from,
                       .place = move_->place,
                       .error = {ErrorCode::cancelled, "the deployment ends"}});
  move_.reset();
  for (Process& process : processes_) {
    if (process.state == State::gone) continue;
    process.suspicion.reset();
    process.deadline = now + limits_.leave_max;
    const bool killed = std::exchange(process.state, State::leaving) == State::ending;
    if (!killed && how) actions.push_back({.kind = *how, .process = id_of(process)});
  }
  check_stopped(actions);
}

void Deployment::check_stopped(Actions& actions) {
  if (!all_in(State::gone)) return;
  phase_ = Phase::stopped;
  actions.push_back({.kind = ActionKind::stopped});
}

}  // namespace chainpump::graph
