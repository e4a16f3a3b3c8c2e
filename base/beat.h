// How far a computing thread has come: a count that it raises between two parts of its work, for
// others who watch whether it does. It says nothing about what is done, only that something is.
#pragma once

#include <atomic>
#include <cstdint>

namespace chainpump {

class Beat {
 public:
  /// The thread's alone; costs a store.
  void tick() { count_.store(count() + 1, std::memory_order_relaxed); }
  /// Any thread.
  uint64_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  alignas(64) std::atomic<uint64_t> count_{0};
};

}  // namespace chainpump
