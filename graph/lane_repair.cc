#include "graph/lane_repair.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace chainpump::graph {
namespace {

StageIndex stage_of(size_t index) { return StageIndex(static_cast<int32_t>(index)); }

}  // namespace

LaneRepair::LaneRepair(int32_t num_stages, PlanEpoch epoch, const LaneRepairLimits& limits)
    : limits_(limits),
      epoch_(epoch),
      first_since_(epoch),
      members_(static_cast<size_t>(num_stages)) {}

void LaneRepair::take(StageIndex stage) {
  CHECK(at(stage).place == Place::empty);
  at(stage) = {.place = Place::taken};
  if (stage.value == 0) first_is_new_ = true;
}

void LaneRepair::leave(StageIndex stage) {
  at(stage) = {};
  // Its end is waited for, which begins all anew; a fence goes on, to find who else hangs.
  if (state_ == State::fencing) return;
  deadline_.reset();
  forget_trouble();
}

void LaneRepair::forget_trouble() {
  trouble_.reset();
  trouble_deadline_.reset();
}

void LaneRepair::start(TimePoint deadline) {
  CHECK(all_there());
  connect_all(deadline);
}

void LaneRepair::connect_all(TimePoint deadline) {
  deadline_ = deadline;
  for (size_t i = 0; i < members_.size(); ++i) {
    members_[i] = {.place = Place::linked};
    ask(AskKind::connect, stage_of(i));
  }
}

bool LaneRepair::all_there() const {
  return std::all_of(members_.begin(), members_.end(),
                     [](const Member& m) { return m.place != Place::empty; });
}

bool LaneRepair::none_awaited() const {
  return std::none_of(members_.begin(), members_.end(),
                      [](const Member& m) { return m.is_awaited() || m.changes; });
}

void LaneRepair::serve() {
  state_ = State::serving;
  deadline_.reset();
  if (std::exchange(first_is_new_, false)) first_since_ = epoch_;
}

void LaneRepair::begin(PlanEpoch epoch, TimePoint now) {
  CHECK_LT(epoch_.value, epoch.value);
  state_ = State::fencing;
  epoch_ = epoch;
  deadline_ = now + limits_.fence_max;
  forget_trouble();
  hung_.clear();
  must_begin_anew_.reset();
  asks_.clear();  // of the epoch before
  for (size_t i = 0; i < members_.size(); ++i) {
    members_[i].answered = members_[i].changes = false;
    if (members_[i].place == Place::linked) ask(AskKind::fence, stage_of(i));
  }
  advance(now);
}

void LaneRepair::advance(TimePoint now) {
  if (!none_awaited()) return;
  if (state_ == State::fencing) {
    deadline_.reset();
    if (!all_there()) return;
    state_ = State::connecting;
    connect_all(now + limits_.connect_max);
  } else if (state_ == State::connecting && all_there()) {
    state_ = State::resuming;
    deadline_ = now + limits_.resume_max;
    forget_trouble();
    ask(AskKind::resume, StageIndex(0));
  }
}

void LaneRepair::hand_over(StageIndex stage, TimePoint now) {
  CHECK(state_ == State::fencing && at(stage).changes);
  at(stage) = {.place = Place::linked, .answered = true};
  if (stage.value == 0) first_is_new_ = true;
  advance(now);
}

void LaneRepair::keep(StageIndex stage, TimePoint now) {
  if (!std::exchange(at(stage).changes, false)) return;
  advance(now);
}

void LaneRepair::on_fenced(StageIndex stage, PlanEpoch epoch, TimePoint now) {
  if (state_ != State::fencing || epoch != epoch_ || !at(stage).is_awaited()) return;
  at(stage).answered = true;
  advance(now);
}

void LaneRepair::on_connected(StageIndex stage, PlanEpoch epoch, TimePoint now) {
  const bool at_it = state_ == State::starting || state_ == State::connecting;
  if (!at_it || epoch != epoch_ || !at(stage).is_awaited()) return;
  at(stage).answered = true;
  advance(now);
}

void LaneRepair::on_resumed(PlanEpoch epoch) {
  if (state_ != State::resuming || epoch != epoch_ || !all_there()) return;
  forget_trouble();
  serve();
  ask(AskKind::serving, StageIndex(0));
}

void LaneRepair::on_call_failed(StageIndex stage, PlanEpoch epoch, Error error, TimePoint now) {
  const bool at_it = state_ != State::serving && state_ != State::fencing;
  if (!at_it || epoch != epoch_ || at(stage).place != Place::linked || trouble_) return;
  trouble_ = Trouble{stage, {error.code, ": " + error.message}};
  trouble_deadline_ = now + limits_.death_news_max;
}

std::optional<TimePoint> LaneRepair::next_deadline() const {
  if (!trouble_deadline_) return deadline_;
  return deadline_ ? std::min(*deadline_, *trouble_deadline_) : *trouble_deadline_;
}

/// Whether it has passed, in time to be believed; otherwise the news gets another moment.
bool LaneRepair::is_over(std::optional<TimePoint>& deadline, TimePoint now) const {
  if (!deadline || now < *deadline) return false;
  const bool late = now - *deadline > limits_.late_look_max;
  deadline.reset();
  if (late) deadline = now + limits_.late_look_max;
  return !late;
}

void LaneRepair::on_time(TimePoint now) {
  if (is_over(trouble_deadline_, now)) must_begin_anew_ = std::exchange(trouble_, std::nullopt);
  if (!is_over(deadline_, now)) return;
  for (size_t i = 0; i < members_.size(); ++i) {
    const bool late = state_ == State::resuming ? i == 0 : members_[i].is_awaited();
    if (!late) continue;
    if (state_ == State::fencing || state_ == State::resuming) {
      hung_.push_back(stage_of(i));
    } else if (!must_begin_anew_) {
      must_begin_anew_ =
          Trouble{stage_of(i), {ErrorCode::deadline_exceeded, " did not open its links in time"}};
    }
  }
}

std::vector<StageIndex> LaneRepair::take_hung() { return std::exchange(hung_, {}); }
std::optional<LaneRepair::Trouble> LaneRepair::take_must_begin_anew() {
  return std::exchange(must_begin_anew_, std::nullopt);
}
std::vector<LaneRepair::Ask> LaneRepair::take_asks() { return std::exchange(asks_, {}); }

}  // namespace chainpump::graph
