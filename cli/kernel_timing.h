// What the kernel measurements share: a clock round some work, and operands. One thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "base/clock.h"

namespace chainpump::cli {

/// Median of a few runs of `work`, after one that is not counted.
template <typename Work>
double median_seconds(Work work) {
  constexpr int kTries = 5;
  work();
  std::vector<double> times;
  for (int i = 0; i < kTries; ++i) {
    const TimePoint start = steady_clock().now();
    work();
    times.push_back(to_seconds(steady_clock().now() - start));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

/// In [-2, 2].
inline std::vector<float> random_floats(int64_t count) {
  std::mt19937 random(2);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(random() % 2001) / 500.0f - 2.0f;
  return values;
}

}  // namespace chainpump::cli
