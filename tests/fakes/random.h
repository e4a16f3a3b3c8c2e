// Random numbers for tests: one seed gives the same run again on any machine. One thread.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace chainpump::fakes {

/// SplitMix64: the generator of Steele, Lea and Flood (2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  /// In [0, below).
  int pick(int below) { return static_cast<int>(next() % static_cast<uint64_t>(below)); }
  /// True once in so many times.
  bool chance(int in) { return pick(in) == 0; }
  /// In [low, high).
  double uniform(double low, double high) {
    return low + (high - low) * static_cast<double>(next() >> 11) * 0x1p-53;
  }
  Duration up_to(Duration most) {
    return Duration(static_cast<int64_t>(next() % static_cast<uint64_t>(most.count() + 1)));
  }

 private:
  uint64_t state_;
};

}  // namespace chainpump::fakes
