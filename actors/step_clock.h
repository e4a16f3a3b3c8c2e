// Where a stage's time goes: every moment belongs to exactly one part, so the parts add up to the
// wall time. One thread.
#pragma once

#include <array>

#include "base/clock.h"

namespace chainpump::actors {

enum class StepPart : uint8_t {
  compute,      // the executor runs
  transfer,     // links' own code, encoding and decoding
  wait_input,   // bubble: nothing to do has come
  wait_credit,  // bubble: the stage after has no free slot
  idle,         // no request anywhere that this stage knows of
};
inline constexpr int kNumStepParts = 5;

class StepClock {
 public:
  explicit StepClock(const Clock& clock) : clock_(clock), last_(clock.now()) {}

  /// What has passed since the last call belonged to `part`; returns how much.
  Duration charge(StepPart part) {
    const TimePoint now = clock_.now();
    const Duration passed = now - last_;
    spent_[static_cast<size_t>(part)] += passed;
    last_ = now;
    return passed;
  }
  /// Counts from now on.
  void restart() {
    spent_ = {};
    last_ = clock_.now();
  }
  TimePoint now() const { return clock_.now(); }
  /// When charge() was called last.
  TimePoint last() const { return last_; }
  Duration spent(StepPart part) const { return spent_[static_cast<size_t>(part)]; }
  Duration total() const {
    Duration sum{0};
    for (const Duration d : spent_) sum += d;
    return sum;
  }

 private:
  const Clock& clock_;
  TimePoint last_;
  std::array<Duration, kNumStepParts> spent_{};
};

}  // namespace chainpump::actors
