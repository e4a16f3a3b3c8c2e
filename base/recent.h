// How often something has happened lately: a count over a window of time that moves along. One
// thread; time is handed in, and never goes back.
#pragma once

#include <deque>
#include <utility>

#include "base/clock.h"

namespace chainpump {

class Recent {
 public:
  explicit Recent(Duration window, std::deque<TimePoint> times = {})
      : window_(window), times_(std::move(times)) {}

  /// Once more. How often within the window, this time included.
  size_t add(TimePoint now) {
    times_.push_back(now);
    while (now - times_.front() > window_) times_.pop_front();
    return times_.size();
  }
  const std::deque<TimePoint>& times() const { return times_; }
  Duration window() const { return window_; }

 private:
  Duration window_;
  std::deque<TimePoint> times_;
};

}  // namespace chainpump
