// The lanes of a deployment as this process uses them: each request goes to the one that will have
// its first token first, as the router predicts it (graph/router.h), and stays there as long as
// that lane serves. Its tokens are the same on any.
//
//   a lane     gets new requests             what ends it
//   away       while no other serves, in     reopen()
//              turns; they wait
//   open       yes, unless it is paused      it was lost: its first rank broke down, or the
//                                            connection to it (its requests wait; actors/lane.h)
//   paused     as when it is away            it serves again; told by the coordinator while some
//                                            other of its ranks is replaced
// What a lane has that does not serve for a second goes on in others, if some serve. One that is
// away although the coordinator says that all its ranks are at work has lost no more than its
// connection: another is made.
//
// A deployment that goes on by another plan may have more lanes, or fewer: what the last ones have
// then goes on in others at once.
//
// What a lane says of itself comes with its results. Thread rule: as Lane; what comes of time, and
// of the deployment's end, comes on a thread of its own.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "actors/alarm.h"
#include "actors/lane.h"
#include "graph/plan.h"
#include "graph/router.h"

namespace chainpump::actors {

struct LanesOptions {
  /// Connects to a lane's first rank once more, and reopens it; on the thread that time has. Empty:
  /// no connection breaks while both its ends live.
  std::function<void(graph::LaneId)> reconnect = {};
  /// How long one waits for a lane before it goes on in another; a lane that has a standby is back
  /// by then, one that has to load weights may take long.
  Duration move_after = std::chrono::seconds(1);
  size_t most_lanes = 0;  // that there may ever be; fewer than the plan's: as many as that
};

class Lanes : public std::enable_shared_from_this<Lanes> {
 public:
  /// All are away. no_room if the system refuses a thread.
  static Result<std::shared_ptr<Lanes>> create(const graph::Plan& plan,
                                               std::shared_ptr<Outcome> outcome,
                                               LanesOptions options = {});

  /// How many there are now: of the plan at first.
  size_t size() const { return num_lanes_; }
  /// At most as many as it was made for.
  void set_size(size_t num_lanes);
  /// As Lane::reopen(), first of all and whenever the lane has another first rank.
  void reopen(graph::LaneId lane, std::shared_ptr<RankPort> first, PlanEpoch since);
  /// Nobody could be connected to, or the connection was lost: is tried again soon.
  void reconnect_later(graph::LaneId lane);
  /// Whether all its ranks are at work, as the coordinator says.
  void set_paused(graph::LaneId lane, bool paused);
  /// One of the callbacks for each sequence. overloaded, as their end, if no lane takes any.
  void submit(RequestId id, SequenceRequest request, Duration timeout,
              std::vector<SequenceCallbacks> callbacks);
  void cancel(RequestId id);
  /// What waits ends soon, with the outcome's reason.
  void deployment_ended();
  /// Leaves all lanes: nothing is called back after that. Not in a callback.
  void close();

 private:
  Lanes(const graph::Plan& plan, std::shared_ptr<Outcome> outcome, LanesOptions options,
        std::unique_ptr<Alarm> alarm);
  Result<graph::LaneId> choose(RequestId id, const SequenceRequest& request);
  LaneEvents events_of(graph::LaneId lane);
  struct Standing {
    bool open = false;
    bool paused = false;
    bool gone = false;  // there are fewer lanes now
    bool will_reconnect = false;
    uint64_t num_pauses = 0;
    bool serves() const { return open && !paused && !gone; }
  };
  template <typename Change>
  void change(graph::LaneId lane, Change change);
  void reconnect_if_lost(graph::LaneId lane);
  void move_later(graph::LaneId lane, uint64_t num_pauses);  // under the lock
  void move_if_it_waits(graph::LaneId lane, uint64_t num_pauses);
  void move(graph::LaneId lane);
  graph::LaneId choose_for(const Lane::Together& together);  // that are moved
  void wake_at(graph::LaneId lane, TimePoint when);
  /// Has the router forget the request when the last of its sequences has ended.
  void forget_at_end(RequestId id, std::vector<SequenceCallbacks>& callbacks);

  const std::shared_ptr<Outcome> outcome_;
  const LanesOptions options_;
  std::vector<std::shared_ptr<Lane>> lanes_;  // since create(), of which the first are there
  std::atomic<size_t> num_lanes_;
  std::mutex moving_;  // what is next; and while a request is in no lane. Before all other locks
  bool closed_ = false;
  std::mutex mutex_;  // what is below
  graph::Router router_;
  std::vector<Standing> standings_;
  size_t num_serving_ = 0;
  std::unique_ptr<Alarm> alarm_;  // until close()
};

}  // namespace chainpump::actors
