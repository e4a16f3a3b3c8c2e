// The gateway's process as `serve` sees it: started with the service's socket, heard, and ended if
// it hangs. Its serving thread shows about ten times a second that it is at work
// (cli/gateway_process.h):
//
//   phase     from                       hangs after
//   starting  the start                  60 s: it reads the vocabulary
//   serving   its first word             0.75 s without one
//   ending    when it closes the pipe    10 s
//
// `serve` counts none of the time in which it was itself stopped (graph/failure_detector.h). One
// thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "actors/os/process.h"
#include "base/clock.h"
#include "base/unique_fd.h"
#include "graph/failure_detector.h"

namespace chainpump::cli {

class GatewayChild {
 public:
  static Result<GatewayChild> start(const std::vector<std::string>& arguments, int listener);

  os::Process& process() { return process_; }
  /// Readable when it has said something; -1 when it will not any more.
  int news_fd() const { return news_.get(); }
  /// Takes what it has said. Whether it is ready, the one time that it says so.
  bool read_news(TimePoint now);
  /// When to call hangs_for() again.
  std::optional<TimePoint> next_deadline() const { return detector_.next_deadline(); }
  /// How long it has been silent, if it hangs; once.
  std::optional<Duration> hangs_for(TimePoint now);

 private:
  GatewayChild(os::Process process, UniqueFd news);
  void enter(const graph::FailureDetectorLimits& limits, TimePoint now);

  os::Process process_;
  UniqueFd news_;
  graph::FailureDetector detector_;
  bool is_serving_ = false;
  uint64_t num_heard_ = 0;
};

}  // namespace chainpump::cli
