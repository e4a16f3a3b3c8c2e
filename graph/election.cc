#include "graph/election.h"

#include <algorithm>
#include <utility>

namespace chainpump::graph {

Election::Actions Election::start(TimePoint now) {
  Actions actions;
  grant_at_ = now;
  advance(now, actions);
  return actions;
}

Election::Actions Election::step(const Event& event, TimePoint now) {
  Actions actions;
  // What comes too late to a leader that was stopped cannot make it one again.
  advance(now, actions);
  std::visit([&](const auto& e) { on(e, now, actions); }, event);
  advance(now, actions);
  return actions;
}

Election::Actions Election::on_time(TimePoint now) {
  Actions actions;
  advance(now, actions);
  return actions;
}

std::optional<TimePoint> Election::next_deadline() const {
  std::optional<TimePoint> next;
  const auto consider = [&](const std::optional<TimePoint>& due) {
    if (due && (!next || *due < *next)) next = due;
  };
  switch (state_) {
    case State::outside:
      consider(grant_at_);
      break;
    case State::waiting:
      consider(renew_at_);
      consider(campaign_at_);
      break;
    case State::leading:
      consider(renew_at_);
      consider(until_);
      break;
    case State::over:
      break;
  }
  return next;
}

void Election::advance(TimePoint now, Actions& actions) {
  const auto is_due = [&](std::optional<TimePoint>& due) {
    if (!due || now < *due) return false;
    due.reset();
    return true;
  };
  if (state_ == State::leading && now >= until_)
    lose_lease("its lease could not be renewed in time", actions);
  if (state_ == State::outside && is_due(grant_at_)) actions.push_back({.kind = ActionKind::grant});
  if (state_ != State::waiting && state_ != State::leading) return;
  if (is_due(renew_at_)) actions.push_back({.kind = ActionKind::renew, .lease = lease_});
  if (state_ == State::waiting && is_due(campaign_at_))
    actions.push_back({.kind = ActionKind::campaign, .lease = lease_});
}

void Election::lose_lease(const char* why, Actions& actions) {
  if (state_ == State::leading) {
    state_ = State::over;
    actions.push_back({.kind = ActionKind::step_down, .why = why});
  } else if (state_ == State::waiting) {
    state_ = State::outside;
    grant_at_ = TimePoint();  // at once
  }
}

void Election::on(const Granted& event, TimePoint now, Actions&) {
  if (state_ != State::outside) return;
  state_ = State::waiting;
  lease_ = event.lease;
  until_ = event.asked + event.ttl - limits_.margin;
  renew_at_ = event.asked + limits_.renew_every;
  campaign_at_ = now;
}

void Election::on(const Renewed& event, TimePoint now, Actions& actions) {
  if (event.lease != lease_ || (state_ != State::waiting && state_ != State::leading)) return;
  if (event.ttl <= Duration(0)) return lose_lease("its lease has run out", actions);
  until_ = std::max(until_, event.asked + event.ttl - limits_.margin);
  renew_at_ = std::max(now, event.asked + limits_.renew_every);
}

void Election::on(const Won& event, TimePoint now, Actions& actions) {
  if (event.lease != lease_ || state_ != State::waiting) return;
  if (now >= until_) return lose_lease("", actions);
  state_ = State::leading;
  term_ = event.term;
  actions.push_back({.kind = ActionKind::lead, .term = term_});
}

void Election::on(const Lost& event, TimePoint now, Actions&) {
  if (event.lease == lease_ && state_ == State::waiting) campaign_at_ = now + limits_.look_every;
}

void Election::on(const NoLease& event, TimePoint, Actions& actions) {
  if (event.lease == lease_ && state_ == State::waiting) lose_lease("", actions);
}

void Election::on(const GrantFailed&, TimePoint now, Actions&) {
  if (state_ == State::outside) grant_at_ = now + limits_.retry_after;
}

void Election::on(const RenewFailed&, TimePoint now, Actions&) {
  if (state_ == State::waiting || state_ == State::leading) renew_at_ = now + limits_.retry_after;
}

void Election::on(const CampaignFailed&, TimePoint now, Actions&) {
  if (state_ == State::waiting) campaign_at_ = now + limits_.retry_after;
}

}  // namespace chainpump::graph
