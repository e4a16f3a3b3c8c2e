#include "graph/deployment.h"

#include <algorithm>

#include "base/check.h"

namespace chainpump::graph {
namespace {
template <typename... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;
}  // namespace

Deployment::Deployment(const Plan& plan, const DeploymentLimits& limits) : limits_(limits) {
  CHECK_GT(num_ranks(plan), 0);
  for (int32_t i = 0; i < num_ranks(plan); ++i) {
    ranks_.emplace_back();
    ranks_.back().name = rank_name(plan, RankId(static_cast<uint32_t>(i)));
  }
}

Deployment::Rank& Deployment::at(RankId rank) {
  CHECK_LT(static_cast<size_t>(rank.value), ranks_.size());
  return ranks_[rank.value];
}

bool Deployment::all_in(RankState state) const {
  return std::all_of(ranks_.begin(), ranks_.end(), [&](const Rank& r) { return r.state == state; });
}

std::vector<Deployment::Action> Deployment::start(TimePoint now) {
  std::vector<Action> actions;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    ranks_[i].deadline = now + limits_.greet_max;
    actions.push_back({ActionKind::spawn, RankId(static_cast<uint32_t>(i))});
  }
  return actions;
}

std::vector<Deployment::Action> Deployment::step(const Event& event, TimePoint now) {
  std::vector<Action> actions;
  std::visit(Overloaded{
                 [&](const Greeted& e) {
                   Rank& r = at(e.rank);
                   if (r.state != RankState::starting) return;
                   r.state = RankState::loading;
                   r.deadline = now + limits_.load_silence_max;
                   actions.push_back({ActionKind::load, e.rank});
                 },
                 [&](const LoadProgressed& e) {
                   Rank& r = at(e.rank);
                   if (r.state == RankState::loading) r.deadline = now + limits_.load_silence_max;
                 },
                 [&](const Loaded& e) { on_loaded(e, now, actions); },
                 [&](const Connected& e) { on_connected(e, actions); },
                 [&](const Failed& e) {
                   Error error = e.error;
                   error.message = fmt::format("{}: {}", at(e.rank).name, error.message);
                   fail(std::move(error), now, actions);
                 },
                 [&](const Exited& e) { on_exited(e, now, actions); },
                 [&](const StopRequested&) { stop(now, actions); },
             },
             event);
  return actions;
}

void Deployment::on_loaded(const Loaded& event, TimePoint now, std::vector<Action>& actions) {
  Rank& loaded = at(event.rank);
  if (loaded.state != RankState::loading) return;
  loaded.state = RankState::loaded;
  loaded.deadline.reset();
  loaded.numerics_id = event.numerics_id;
  if (!all_in(RankState::loaded)) return;
  for (const Rank& r : ranks_) {
    if (r.numerics_id == ranks_.front().numerics_id) continue;
    return fail(
        make_error(ErrorCode::internal, "{} computes as {}, {} as {}: a deployment needs one way",
                   ranks_.front().name, ranks_.front().numerics_id, r.name, r.numerics_id),
        now, actions);
  }
  for (size_t i = 0; i < ranks_.size(); ++i) {
    ranks_[i].state = RankState::connecting;
    ranks_[i].deadline = now + limits_.connect_max;
    actions.push_back({ActionKind::connect, RankId(static_cast<uint32_t>(i))});
  }
}

void Deployment::on_connected(const Connected& event, std::vector<Action>& actions) {
  Rank& connected = at(event.rank);
  if (connected.state != RankState::connecting) return;
  connected.state = RankState::serving;
  connected.deadline.reset();
  if (!all_in(RankState::serving)) return;
  phase_ = Phase::serving;
  actions.push_back({ActionKind::serve});
}

void Deployment::on_exited(const Exited& event, TimePoint now, std::vector<Action>& actions) {
  Rank& gone = at(event.rank);
  if (gone.state == RankState::gone) return;
  const bool expected = gone.state == RankState::leaving;
  gone.state = RankState::gone;
  gone.deadline.reset();
  if (!expected)
    fail(make_error(ErrorCode::disconnected, "{} died: {}", gone.name, event.how), now, actions);
  if (phase_ == Phase::stopping && all_in(RankState::gone)) {
    phase_ = Phase::stopped;
    actions.push_back({ActionKind::stopped});
  }
}

void Deployment::fail(Error error, TimePoint now, std::vector<Action>& actions) {
  if (phase_ == Phase::stopping || phase_ == Phase::stopped) return;
  actions.push_back({.kind = ActionKind::fail, .error = std::move(error)});
  stop(now, actions);
}

void Deployment::stop(TimePoint now, std::vector<Action>& actions) {
  if (phase_ == Phase::stopping || phase_ == Phase::stopped) return;
  phase_ = Phase::stopping;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (ranks_[i].state == RankState::gone) continue;
    ranks_[i].state = RankState::leaving;
    ranks_[i].deadline = now + limits_.leave_max;
    actions.push_back({ActionKind::shutdown, RankId(static_cast<uint32_t>(i))});
  }
  if (all_in(RankState::gone)) {
    phase_ = Phase::stopped;
    actions.push_back({ActionKind::stopped});
  }
}

std::vector<Deployment::Action> Deployment::on_time(TimePoint now) {
  std::vector<Action> actions;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    Rank& late = ranks_[i];
    if (!late.deadline || now < *late.deadline) continue;
    const RankId rank(static_cast<uint32_t>(i));
    const Duration late_by = now - *late.deadline;
    late.deadline.reset();
    if (late.state == RankState::leaving) {
      actions.push_back({ActionKind::kill, rank});
      continue;
    }
    if (late_by > limits_.late_look_max) {
      late.deadline = now + limits_.late_look_max;
      continue;
    }
    const char* doing = late.state == RankState::starting  ? "say hello"
                        : late.state == RankState::loading ? "load its weights"
                                                           : "open its links";
    fail(make_error(ErrorCode::deadline_exceeded, "{} did not {} in time", late.name, doing), now,
         actions);
  }
  return actions;
}

std::optional<TimePoint> Deployment::next_deadline() const {
  std::optional<TimePoint> next;
  for (const Rank& r : ranks_)
    if (r.deadline && (!next || *r.deadline < *next)) next = r.deadline;
  return next;
}

}  // namespace chainpump::graph
