// Who among the ranks hangs: stopped, stuck in a step, or turning in circles. A pure core. Each is
// asked again and again how far its computing thread has come (base/beat.h); who does not answer,
// or whose count stands still, for hang_max is said to hang, once, and watched no more. Deaths are
// seen elsewhere, and sooner.
//
// A detector that was itself late, because its own process was stopped or starved, discounts its
// gap: it has not looked, so that nobody can have failed to show himself.
// Pure; one thread.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "graph/plan.h"

namespace chainpump::graph {

/// A hang is told within hang_max + period; a stall shorter than hang_max - period never is.
struct FailureDetectorLimits {
  Duration period = std::chrono::milliseconds(100);
  Duration hang_max = std::chrono::milliseconds(750);
  Duration late_max = std::chrono::milliseconds(100);
};

/// Where more than two of a node's threads that compute share one of its cores, each waits for its
/// turn, and hang_max grows in proportion: as on the node where they have the least.
FailureDetectorLimits failure_limits(const Plan& plan);

class FailureDetector {
 public:
  struct Hung {
    ProcessId process;
    Duration silent_for;
    bool answers;  // though its count stands still
  };
  struct Looked {
    std::vector<ProcessId> ask;
    std::vector<Hung> hung;
  };

  explicit FailureDetector(const FailureDetectorLimits& limits) : limits_(limits) {}

  void set_limits(const FailureDetectorLimits& limits) { limits_ = limits; }
  /// From now on, anew if it was watched before.
  void watch(ProcessId process, TimePoint now);
  /// Whether it was watched.
  bool forget(ProcessId process) { return watched_.erase(process) > 0; }
  /// What it answered when it was asked; nothing: the call failed.
  void on_answer(ProcessId process, std::optional<uint64_t> count, TimePoint now);
  /// To be called when next_deadline() has come.
  Looked on_time(TimePoint now);
  std::optional<TimePoint> next_deadline() const;

 private:
  struct Watched {
    TimePoint since;  // its count was last seen to have grown
    std::optional<uint64_t> count = {};
    bool asked = false;
    bool answers = false;  // since then
  };
  FailureDetectorLimits limits_;
  std::map<ProcessId, Watched> watched_;
  TimePoint next_look_{};  // while anybody is watched
};

}  // namespace chainpump::graph
