// SIGINT and SIGTERM as a callback on an ordinary thread, where anything may be called: the
// signals are blocked and read from a signalfd.
//
// Thread rule: create() in the main thread before any other thread is made, since threads inherit
// the blocked mask. Children spawned by actors/os/process.h start with a clean mask.
#pragma once

#include <functional>
#include <memory>

#include "base/result.h"

namespace chainpump::os {

class TerminationSignals {
 public:
  /// `on_signal` runs on this object's own thread for each signal that arrives, with its number.
  /// One object per process.
  static Result<std::unique_ptr<TerminationSignals>> create(std::function<void(int)> on_signal);
  /// Stops listening and restores the mask. No callback runs after this returns.
  ~TerminationSignals();

 private:
  struct Impl;
  explicit TerminationSignals(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chainpump::os
