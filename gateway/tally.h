// What the gateway counts: requests by how they ended, and tokens, in all and lately. Any thread;
// time comes in from outside.
#pragma once

#include <array>
#include <mutex>

#include "base/clock.h"
#include "base/result.h"
#include "gateway/types.h"

namespace chainpump::gateway {

class Tally {
 public:
  void on_admitted();
  void on_refused();
  void on_ended(const Result<Ok>& end);
  void on_token(TimePoint now);

  /// Admitted requests that have not ended.
  int32_t num_live() const;
  /// The counts; what else stands in a report is left as it is.
  void fill(StatusReport& report, TimePoint now) const;

 private:
  static constexpr int64_t kRateSeconds = 10;
  struct Second {
    int64_t index = -1;  // since the clock's epoch
    uint64_t num_tokens = 0;
  };

  mutable std::mutex mutex_;
  int32_t num_live_ = 0;
  uint64_t num_completed_ = 0;
  uint64_t num_failed_ = 0;
  uint64_t num_cancelled_ = 0;
  uint64_t num_refused_ = 0;
  uint64_t num_tokens_ = 0;
  std::array<Second, kRateSeconds + 1> seconds_;  // the current one, and the whole ones before it
};

}  // namespace chainpump::gateway
