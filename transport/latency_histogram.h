// Latencies of a link's last frames, in a fixed number of buckets (four to each doubling, from 64
// ns to about 70 s), for percentiles in reports. Old frames fade: when a window is full, all counts
// are halved. One thread; constant time and memory.
#pragma once

#include <array>
#include <cstdint>

#include "base/clock.h"

namespace chainpump::transport {

class LatencyHistogram {
 public:
  /// Negative durations (clocks that disagree) are not counted.
  void add(Duration latency);
  /// The upper bound of the bucket that holds the `quantile` (0 to 1), in microseconds; 0 if empty.
  double quantile_us(double quantile) const;

 private:
  static constexpr int kNumBuckets = 124;
  static constexpr uint32_t kWindow = 4096;
  std::array<uint32_t, kNumBuckets> counts_{};
  uint32_t total_ = 0;
};

}  // namespace chainpump::transport
