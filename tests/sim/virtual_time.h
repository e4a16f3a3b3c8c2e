// What a simulated run is made of: one random source, one queue of events in virtual time, and the
// trace of what happened. Everything of a run follows from the seed: events are ordered by time,
// then by the order in which they were asked for, and nothing else is random. One thread.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <functional>
#include <queue>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "tests/fakes/random.h"

namespace chainpump::sim {

using fakes::Random;

class EventQueue {
 public:
  using Event = std::function<void()>;
  TimePoint now() const { return now_; }
  void after(Duration delay, Event event) { at(now_ + delay, std::move(event)); }
  void at(TimePoint when, Event event) {
    events_.push({when < now_ ? now_ : when, ++last_, std::move(event)});
  }
  /// Moves time on to the next event and does it; false if there is none.
  bool run_next() {
    if (events_.empty()) return false;
    Entry entry = events_.top();
    events_.pop();
    now_ = entry.when;
    entry.event();
    return true;
  }

 private:
  struct Entry {
    TimePoint when;
    uint64_t number;
    Event event;
    bool operator<(const Entry& other) const {  // the top of the queue is its greatest
      return when != other.when ? when > other.when : number > other.number;
    }
  };
  TimePoint now_;
  uint64_t last_ = 0;
  std::priority_queue<Entry> events_;
};

/// Lines for a person, and a hash (FNV-1a) over all of them to compare two runs by.
class Trace {
 public:
  explicit Trace(std::FILE* file) : file_(file) {}
  template <typename... Args>
  void line(TimePoint now, fmt::format_string<Args...> text, Args&&... args) {
    line_.clear();
    fmt::format_to(std::back_inserter(line_), "{:12.6f} ms  ", to_ms(now - TimePoint{}));
    fmt::format_to(std::back_inserter(line_), text, std::forward<Args>(args)...);
    line_.push_back('\n');
    for (const char c : line_) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    if (file_ != nullptr) std::fwrite(line_.data(), 1, line_.size(), file_);
  }
  uint64_t hash() const { return hash_; }

 private:
  std::FILE* file_;
  fmt::memory_buffer line_;
  uint64_t hash_ = 0xcbf29ce484222325u;
};

}  // namespace chainpump::sim
