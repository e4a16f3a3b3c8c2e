// Time as a dependency: whatever waits or measures is handed a Clock, so that tests and the
// simulator own time. Monotonic nanoseconds; the epoch means nothing across processes on different
// machines, but is shared by all processes of one machine (CLOCK_MONOTONIC).
#pragma once

#include <chrono>

namespace chainpump {

using Duration = std::chrono::nanoseconds;

struct TimePoint {
  Duration since_epoch{0};
  constexpr auto operator<=>(const TimePoint&) const = default;
  constexpr TimePoint operator+(Duration d) const { return {since_epoch + d}; }
  constexpr TimePoint operator-(Duration d) const { return {since_epoch - d}; }
  constexpr Duration operator-(TimePoint other) const { return since_epoch - other.since_epoch; }
};

inline constexpr double to_seconds(Duration d) { return static_cast<double>(d.count()) * 1e-9; }
inline constexpr double to_ms(Duration d) { return static_cast<double>(d.count()) * 1e-6; }

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;
};

/// The machine's monotonic clock. Any thread.
const Clock& steady_clock();

/// A clock that moves only when told to. One thread.
class ManualClock final : public Clock {
 public:
  TimePoint now() const override { return now_; }
  void advance(Duration d) { now_ = now_ + d; }

 private:
  TimePoint now_;
};

}  // namespace chainpump
