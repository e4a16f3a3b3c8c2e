// Whether a stage's steps take as long as they do in the calm: each rank keeps a fit of what its
// own steps take, and counts how many have taken much longer. The coordinator compares that over
// the ranks of a lane (slow_watch.h).
//
// The fit is the typical time (the mean of the logarithm) of each kind of step, by the number of
// its tokens, to a factor of two, and how far back they look, to a factor of four. It says nothing
// of kinds that it has not seen, and learns no slowness, however long that lasts; step_cost.h,
// which schedules by what steps cost, does both.
//
//   a step                                        learnt   counted
//   one of the first 32 of its kind               yes      no
//   within three times what the fit says          yes      yes
//   longer: behind                                no       yes
// So a stage that was slow from its start is as it always was. What takes less than 2 ms longer
// than it should is neither behind nor slow. Pure; one thread.
#pragma once

#include <cstdint>
#include <map>
#include <utility>

#include "base/clock.h"
#include "graph/step_cost.h"

namespace chainpump::graph {

/// Since the rank was loaded.
struct StepTotals {
  uint64_t steps = 0;    // that were counted
  uint64_t behind = 0;   // of them: took over three times as long as the fit says
  uint64_t slow = 0;     // of them: over eight times, so that one that is ten times as slow is sure
                         // to be
  Duration measured{0};  // what the steps took
  Duration expected{0};  // and what they would have by the fit
  bool operator==(const StepTotals&) const = default;
};

class StepAccount {
 public:
  /// A step with this work took so long. One that computed nothing is not counted.
  void add(const StepWork& work, Duration spent);
  const StepTotals& totals() const { return totals_; }

 private:
  struct Kind {
    int num_learnt = 0;
    double log_s = 0;
    void learn(double spent_s);
  };

  std::map<std::pair<int, int>, Kind> kinds_;  // a few dozen
  StepTotals totals_;
};

}  // namespace chainpump::graph
