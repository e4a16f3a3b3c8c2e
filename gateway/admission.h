// How many sequences may be live, running or waiting, and what a client is told that finds no room.
// A permit is a value whose end gives the place back.
// Any thread; time comes in from outside.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace chainpump::gateway {

class Admission;

/// One sequence's place.
class Permit {
 public:
  Permit(std::shared_ptr<Admission> admission, TimePoint since, const Clock& clock)
      : admission_(std::move(admission)), since_(since), clock_(&clock) {}
  Permit(Permit&&) noexcept = default;
  Permit& operator=(Permit&&) = delete;
  ~Permit();

 private:
  std::shared_ptr<Admission> admission_;
  TimePoint since_;
  const Clock* clock_;
};

class Admission : public std::enable_shared_from_this<Admission> {
 public:
  Admission(int32_t max_live, const Clock& clock) : clock_(clock), max_live_(max_live) {}

  /// Places for all `count` sequences of a request, or none of them: overloaded, with the time
  /// after which there should be room, from how long sequences have lately taken.
  Result<std::vector<Permit>> admit(int32_t count);
  int32_t num_live() const;
  /// Of sequences; those that are admitted stay.
  void set_max_live(int32_t max_live);

 private:
  friend class Permit;
  void give_back(Duration held);
  Duration expected_wait(int32_t count) const;  // under mutex_

  const Clock& clock_;
  mutable std::mutex mutex_;
  int32_t max_live_;  // sequences
  int32_t num_live_ = 0;
  Duration usual_{std::chrono::seconds(1)};  // of one sequence, a moving average
};

}  // namespace chainpump::gateway
