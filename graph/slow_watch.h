// Which ranks have become slow: their steps take ten times as long as they did, and those of the
// rest of the lane do not, so that it is not the machine. A pure core of the coordinator's; each
// rank says with its beats what its steps have taken (step_account.h).
//
// Looked at is what a rank has done in the last 4 s, or, if that were less than 8 steps, in the
// time in which it has done 8, up to a minute:
//
//   most of its steps were       it is     then
//   slow (over 8 times the fit)  slow      told, if another of a lane of its is calm
//   not behind (over 3 times)    calm      no longer slow
//   else                         behind    no longer slow
//   fewer than 8 in a minute     unknown   as it was
// A single stall, however long, is one step.
// Pure; one thread.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "base/ids.h"
#include "graph/step_account.h"

namespace chainpump::graph {

struct SlowLimits {
  Duration window = std::chrono::seconds(4);
  Duration window_max = std::chrono::minutes(1);
  uint64_t steps_min = 8;
};

class SlowWatch {
 public:
  explicit SlowWatch(const SlowLimits& limits = {}) : limits_(limits) {}

  struct Change {
    ProcessId process;
    bool is_slow = false;
  };

  /// What a rank has said.
  void on_answer(ProcessId process, const StepTotals& totals, TimePoint now);
  /// It has gone, or another has its number.
  void forget(ProcessId process) { ranks_.erase(process); }
  /// Whoever has become slow, or is no longer, in lanes of these processes; in order.
  std::vector<Change> look(const std::vector<std::vector<ProcessId>>& lanes);
  /// Of one that is slow: how many times as long its steps take; else nothing.
  std::optional<double> slow_times(ProcessId process) const;

 private:
  enum class Pace : uint8_t { unknown, calm, behind, slow };
  struct Sample {
    TimePoint at;
    StepTotals totals;
  };
  struct Rank {
    std::deque<Sample> samples;  // the window's begin first; at least one
    StepTotals latest;
    Pace pace = Pace::unknown;
    double times = 1;  // in the window
    bool is_slow = false;
  };
  Pace pace_of(ProcessId process) const;
  void judge(Rank& rank) const;

  SlowLimits limits_;
  std::map<ProcessId, Rank> ranks_;
};

}  // namespace chainpump::graph
