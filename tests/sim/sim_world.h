// What every part of a simulated run shares: the one random source, the queue of events, the trace,
// the planted bug, and the first thing that was wrong. One thread.
#pragma once

#include <string>
#include <utility>

#include "base/ids.h"
#include "tests/sim/plant.h"
#include "tests/sim/virtual_time.h"

namespace chainpump::sim {

struct SimWorld {
  SimWorld(uint64_t seed, std::FILE* file, Plant what) : random(seed), trace(file), plant(what) {}
  Random random;
  EventQueue events;
  Trace trace;
  Plant plant;
  std::string wrong;  // the first thing that was; the run ends

  bool faulty = false;        // faults are still to come: until then calls may be lost or late
  TimePoint disturbed_until;  // when the last effect of a fault that was injected is over
  std::function<void(ProcessId)> touch;  // a fault concerns this process
  uint64_t last_taken = 0;               // of requests that some sequencer was given
  uint64_t stale_refused = 0;            // frames and answers of another epoch
  uint64_t calls_lost = 0;               // or late

  TimePoint now() const { return events.now(); }
  void after(Duration delay, EventQueue::Event event) { events.after(delay, std::move(event)); }
  void disturb_for(Duration duration) {
    disturbed_until = std::max(disturbed_until, now() + duration);
  }

  template <typename... Args>
  void say(fmt::format_string<Args...> text, Args&&... args) {
    trace.line(now(), text, std::forward<Args>(args)...);
  }
  template <typename... Args>
  void fail(fmt::format_string<Args...> text, Args&&... args) {
    if (!wrong.empty()) return;
    wrong = fmt::format(text, std::forward<Args>(args)...);
    say("WRONG: {}", wrong);
  }
};

}  // namespace chainpump::sim
