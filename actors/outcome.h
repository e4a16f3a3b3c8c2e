// What became of a deployment, as all threads of a runtime see it: not there yet, serving, failed,
// stopped. Any thread.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace chainpump::actors {

class Lanes;
class RankPort;

class Outcome {
 public:
  void set_serving(std::shared_ptr<Lanes> lanes, std::vector<std::shared_ptr<RankPort>> ports,
                   std::string numerics_id);
  /// The first reason counts.
  void set_failed(Error error);
  void set_stopped();

  /// Waits for the first of: serving, failed, stopped.
  Status wait_ready(Duration timeout);
  bool wait_stopped(Duration timeout);
  Error why_not_serving();
  /// A request's end; where it ended because the deployment did, with the deployment's reason.
  Result<Ok> with_reason(Result<Ok> end);
  /// Null unless serving.
  std::shared_ptr<Lanes> lanes();
  /// Of every rank, in the plan's order; empty unless serving.
  std::vector<std::shared_ptr<RankPort>> ports();
  std::string numerics_id();
  void drop_ports();

 private:
  template <typename F>
  void update(F&& change) {
    const std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Lanes> lanes_;
  std::vector<std::shared_ptr<RankPort>> ports_;
  std::string numerics_id_;
  std::optional<Error> failure_;
  std::optional<TimePoint> verdict_due_;  // since a connection was lost
  bool served_ = false;
  bool stopped_ = false;
};

}  // namespace chainpump::actors
