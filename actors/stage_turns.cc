#include "actors/stage_turns.h"

#include <algorithm>

#include "base/check.h"

namespace chainpump::actors {
namespace {

/// The greater comes first.
int rank_of(StepPart part) {
  switch (part) {
    case StepPart::wait_credit:
      return 2;
    case StepPart::wait_input:
      return 1;
    case StepPart::compute:
    case StepPart::transfer:
    case StepPart::idle:
      return 0;
  }
  return 0;
}

}  // namespace

StageTurns::StageTurns(std::vector<StageLoop*> loops, StepClock& clock, transport::Waiter& waiter)
    : loops_(std::move(loops)), clock_(clock), waiter_(waiter), last_(loops_.size() - 1) {
  CHECK(!loops_.empty());
}

Result<bool> StageTurns::step() {
  for (size_t i = 0; i < loops_.size(); ++i) {
    last_ = (last_ + 1) % loops_.size();
    ASSIGN_OR_RETURN(const bool moved, loops_[last_]->step());
    if (moved) return true;
  }
  return false;
}

void StageTurns::wait_until(TimePoint deadline) {
  StepPart part = StepPart::idle;
  for (const StageLoop* loop : loops_) {
    deadline = std::min(deadline, loop->next_deadline().value_or(deadline));
    if (const StepPart own = loop->waiting_for(); rank_of(own) > rank_of(part)) part = own;
  }
  waiter_.wait_until(deadline);
  clock_.charge(part);
}

}  // namespace chainpump::actors
