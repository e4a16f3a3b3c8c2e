// The lanes of a deployment as this process uses them: each request goes to the one that will have
// its first token first, as the router predicts it (graph/router.h), and stays there to its end.
// Its tokens are the same on any.
//
//   a lane     gets new requests             what ends it
//   away       while no other is open, in    reopen()
//              turns; they wait
//   open       yes                           it was lost: its first rank broke down, or the
//                                            connection to it (its requests wait; actors/lane.h)
//
// What a lane says of itself comes with its results. Thread rule: as Lane; what comes of time, and
// of the deployment's end, comes on a thread of its own.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "actors/alarm.h"
#include "actors/lane.h"
#include "graph/plan.h"
#include "graph/router.h"

namespace chainpump::actors {

class Lanes : public std::enable_shared_from_this<Lanes> {
 public:
  /// All are away. no_room if the system refuses a thread.
  static Result<std::shared_ptr<Lanes>> create(const graph::Plan& plan,
                                               std::shared_ptr<Outcome> outcome);

  /// As Lane::reopen(), first of all and whenever the lane has another first rank.
  void reopen(graph::LaneId lane, std::shared_ptr<RankPort> first, PlanEpoch since);
  /// One of the callbacks for each sequence. overloaded, as their end, if no lane takes any.
  void submit(RequestId id, SequenceRequest request, Duration timeout,
              std::vector<SequenceCallbacks> callbacks);
  void cancel(RequestId id);
  /// What waits ends soon, with the outcome's reason.
  void deployment_ended();
  /// Leaves all lanes: nothing is called back after that. Not in a callback.
  void close();

 private:
  Lanes(const graph::Plan& plan, std::shared_ptr<Outcome> outcome, std::unique_ptr<Alarm> alarm);
  Result<graph::LaneId> choose(RequestId id, const SequenceRequest& request);
  LaneEvents events_of(graph::LaneId lane);
  void set_state(graph::LaneId lane, graph::LaneState state);
  void wake_at(graph::LaneId lane, TimePoint when);
  /// Has the router forget the request when the last of its sequences has ended.
  void forget_at_end(RequestId id, std::vector<SequenceCallbacks>& callbacks);

  const std::shared_ptr<Outcome> outcome_;
  std::vector<std::shared_ptr<Lane>> lanes_;  // since create()
  std::mutex mutex_;
  graph::Router router_;
  size_t num_open_ = 0;
  std::unique_ptr<Alarm> alarm_;  // until close()
};

}  // namespace chainpump::actors
