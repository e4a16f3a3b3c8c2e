// What became of a deployment, as all threads of a runtime see it: not there yet, serving, failed,
// stopped. Any thread.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "actors/health_board.h"
#include "base/clock.h"
#include "base/result.h"

namespace chainpump::actors {

class Lanes;
class RankPort;
struct Planned;

class Outcome {
 public:
  void set_serving(std::shared_ptr<Lanes> lanes, std::vector<std::shared_ptr<RankPort>> ports,
                   std::string numerics_id);
  /// The first reason counts. What waits in a lane that is away ends of it, as of set_stopped().
  void set_failed(Error error);
  void set_stopped();

  /// Waits for the first of: serving, failed, stopped.
  Status wait_ready(Duration timeout);
  bool wait_stopped(Duration timeout);
  Error why_not_serving();
  /// Why it does not serve any more, if it does not.
  std::optional<Error> why_ended();
  /// A request's end; where it ended because the deployment did, with the deployment's reason.
  Result<Ok> with_reason(Result<Ok> end);
  /// What a call to a rank failed with; if that was a lost connection, waits for a moment, at most
  /// `patience`, to hear whether the deployment ends of it, and why.
  Error with_verdict(Error why, Duration patience);
  /// Null unless serving.
  std::shared_ptr<Lanes> lanes();
  /// Of every rank, in the plan's order; empty unless serving.
  std::vector<std::shared_ptr<RankPort>> ports();
  /// Some of them are others now.
  void set_ports(std::vector<std::shared_ptr<RankPort>> ports);
  std::string numerics_id();
  /// The deployment goes on by another plan than the runtime began with.
  void set_planned(std::shared_ptr<const Planned> planned);
  /// That; null: it is the one it began with.
  std::shared_ptr<const Planned> planned();
  HealthBoard& health() { return health_; }
  /// How each lane stands, in order, as a coordinator says.
  void on_lanes(const std::vector<graph::LaneNews>& news);
  /// Closes the lanes; what is set later is dropped at once. Not in a callback.
  void drop_ports();

 private:
  template <typename F>
  void update(F&& change) {
    const std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }
  /// With the reason, or null. Under the lock.
  std::optional<Error> reason() const;
  void tell_lanes_of_end();
  void pause_lanes();

  HealthBoard health_{steady_clock()};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Lanes> lanes_;
  std::vector<std::shared_ptr<RankPort>> ports_;
  std::string numerics_id_;
  std::shared_ptr<const Planned> planned_;
  std::optional<Error> failure_;
  std::vector<bool> paused_;  // by lane
  bool served_ = false;
  bool stopped_ = false;
  bool dropped_ = false;  // nothing is kept any more
};

}  // namespace chainpump::actors
