#include "graph/health.h"

#include <algorithm>

namespace chainpump::graph {
namespace {

constexpr size_t kLanesNamed = 4;
constexpr const char* kNothingCrossed = "no token has crossed its stages yet";

}  // namespace

// -------------------------------------------------------------------------------- Canary

void Canary::begin(TimePoint now) {
  last_crossing_.reset();
  due_ = now + limits_.settle;
}

void Canary::on_crossing(TimePoint now) {
  last_crossing_ = now;
  due_ = now + limits_.idle;
}

bool Canary::ask(bool idle, TimePoint now) {
  if (!idle || !due_ || now < *due_) return false;
  due_ = now + limits_.idle;
  return true;
}

// -------------------------------------------------------------------------------- Health

Health::Lane& Health::at(LaneId lane) {
  if (lane.value >= lanes_.size()) lanes_.resize(size_t{lane.value} + 1);
  return lanes_[lane.value];
}

void Health::on_news(LaneId id, const LaneNews& news, TimePoint now) {
  Lane& lane = at(id);
  lane.state = news.serves ? LaneHealth::State::serving : LaneHealth::State::away;
  lane.epoch = news.epoch;
  if (!news.serves) lane.why = news.why;
  lane.slow = news.slow;
  lane.away_since = now - news.away_for;
}

void Health::on_crossing(LaneId id, PlanEpoch epoch, TimePoint when) {
  Lane& lane = at(id);
  if (epoch < lane.crossed_in || (epoch == lane.crossed_in && when < lane.crossed_at)) return;
  lane.crossed_in = epoch;
  lane.crossed_at = when;
}

LaneHealth Health::report(LaneId id, const Lane& lane, TimePoint now) const {
  LaneHealth health{.lane = id, .state = lane.state};
  health.slow = lane.slow;
  if (has_crossed(lane) && lane.state == LaneHealth::State::serving)
    health.crossed_ago = std::max(Duration(0), now - lane.crossed_at);
  switch (lane.state) {
    case LaneHealth::State::starting:
      health.why = "its stages start";
      return health;
    case LaneHealth::State::away:
      health.away_for = now - lane.away_since;
      health.why = lane.why + "; it is being repaired";
      return health;
    case LaneHealth::State::serving:
      break;
  }
  if (!lane.is_joined)
    health.why = "its first rank cannot be reached";
  else if (!health.crossed_ago)
    health.why = lane.why.empty()
                     ? kNothingCrossed
                     : fmt::format("{}; it is repaired, but {}", lane.why, kNothingCrossed);
  else if (*health.crossed_ago > limits_.crossing_max)
    health.why = fmt::format("no token has crossed its stages for {:.1f} s",
                             to_seconds(*health.crossed_ago));
  health.ready = health.why.empty();
  return health;
}

HealthReport Health::report(TimePoint now) const {
  HealthReport health{.coordinator_away = coordinator_away_};
  for (size_t i = 0; i < lanes_.size(); ++i) {
    health.lanes.push_back(report(LaneId(static_cast<uint8_t>(i)), lanes_[i], now));
    health.ready |= health.lanes.back().ready;
  }
  if (health.ready) return health;
  if (lanes_.empty()) health.why = "the stages start";
  for (size_t i = 0; i < std::min(kLanesNamed, lanes_.size()); ++i)
    health.why += fmt::format("{}lane {}: {}", i == 0 ? "" : "; ", i, health.lanes[i].why);
  if (lanes_.size() > kLanesNamed)
    health.why += fmt::format("; and {} more", lanes_.size() - kLanesNamed);
  return health;
}

}  // namespace chainpump::graph
