// The lanes of a deployment as this process uses them: each request goes to the one that will have
// its first token first, as the router predicts it (graph/router.h), and stays there to its end.
// Its tokens are the same on any.
//
//   a lane     gets new requests   what ends it
//   serving    yes                 it was lost: its first rank broke down, or the connection to it
//   lost       no                  -  (its requests end with the reason, and the deployment does)
//
// What a lane says of itself comes with its results. Thread rule: as Lane.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "actors/lane.h"
#include "graph/plan.h"
#include "graph/router.h"

namespace chainpump::actors {

class Lanes : public std::enable_shared_from_this<Lanes> {
 public:
  /// `firsts` are the ports of each lane's first rank, which have said hello.
  Lanes(const graph::Plan& plan, const std::vector<std::shared_ptr<RankPort>>& firsts,
        std::shared_ptr<Outcome> outcome);

  /// Once, first: attaches to all.
  void open();
  /// One of the callbacks for each sequence. overloaded, as their end, if no lane takes any.
  void submit(RequestId id, SequenceRequest request, Duration timeout,
              std::vector<SequenceCallbacks> callbacks);
  void cancel(RequestId id);
  /// Leaves all lanes. Not in a callback.
  void close();

 private:
  Result<graph::LaneId> choose(RequestId id, const SequenceRequest& request);
  LaneEvents events_of(graph::LaneId lane);
  /// Has the router forget the request when the last of its sequences has ended.
  void forget_at_end(RequestId id, std::vector<SequenceCallbacks>& callbacks);

  const std::shared_ptr<Outcome> outcome_;
  std::vector<std::shared_ptr<Lane>> lanes_;
  std::mutex mutex_;
  graph::Router router_;
};

}  // namespace chainpump::actors
