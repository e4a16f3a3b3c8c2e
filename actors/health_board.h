// How ready the deployment is, as all threads of a runtime see it: what each of them hears goes
// into graph::Health, and anybody may ask. Any thread; nothing here waits.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "graph/health.h"

namespace chainpump::actors {

class HealthBoard {
 public:
  explicit HealthBoard(const Clock& clock) : clock_(clock) {}

  /// Of each lane, in order.
  void on_news(const std::vector<graph::LaneNews>& news) {
    const std::lock_guard lock(mutex_);
    const TimePoint now = clock_.now();
    health_.set_most_lanes(news.size());
    for (size_t i = 0; i < news.size() && i < kLanesMax; ++i)
      health_.on_news(graph::LaneId(static_cast<uint8_t>(i)), news[i], now);
  }
  /// As graph::Health.
  void on_crossing(graph::LaneId lane, PlanEpoch epoch, Duration ago) {
    const std::lock_guard lock(mutex_);
    health_.on_crossing(lane, epoch, clock_.now() - ago);
  }
  void set_joined(graph::LaneId lane, bool joined) {
    const std::lock_guard lock(mutex_);
    joined ? health_.on_joined(lane) : health_.on_lost(lane);
  }
  void set_coordinator_away(std::string why) {
    const std::lock_guard lock(mutex_);
    health_.on_coordinator(std::move(why));
  }

  graph::HealthReport report() const {
    const std::lock_guard lock(mutex_);
    return health_.report(clock_.now());
  }

 private:
  static constexpr size_t kLanesMax = 256;  // as many as there are ids
  const Clock& clock_;
  mutable std::mutex mutex_;
  graph::Health health_;
};

}  // namespace chainpump::actors
