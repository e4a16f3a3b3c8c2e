// The stage loops of one rank, one for each lane it serves, taking turns in one thread. In a turn a
// loop does what it can at once, at most one microbatch, and the next turn begins with the loop
// after it: a lane waits for no more than one step of each other lane. They share the rank's clock,
// so every moment is counted once, and its waiter, so that anything that comes for any of them
// wakes the rank, which waits only if none of them can move.
//
// What the rank waits for, if they wait for different things: credit before input before idle, as
// the first would run at once if it had it.
//
// Thread rule: one thread, that of the loops.
#pragma once

#include <vector>

#include "actors/stage_loop.h"
#include "actors/step_clock.h"
#include "transport/waiter.h"

namespace chainpump::actors {

class StageTurns {
 public:
  /// All of them outlive this; at least one loop, whose clock and waiter these are.
  StageTurns(std::vector<StageLoop*> loops, StepClock& clock, transport::Waiter& waiter);

  /// The next loop's turn that has something to do; false if none has. The error of a loop is the
  /// rank's.
  Result<bool> step();
  /// Waits until there may be something to do, the waiter is woken, or `deadline` or a request's
  /// has come.
  void wait_until(TimePoint deadline);
  /// Which loop took its turn last.
  size_t last() const { return last_; }

 private:
  std::vector<StageLoop*> loops_;
  StepClock& clock_;
  transport::Waiter& waiter_;
  size_t last_ = 0;
};

}  // namespace chainpump::actors
