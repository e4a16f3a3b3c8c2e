// A lane as this process uses it: submits sequences to the rank of its first stage, and sees to it
// that each gets every token in order up to the one that ends it, or an error, and exactly one end.
//
// Thread rule: any thread. Callbacks on a thread of the port, one at a time.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "actors/rank_port.h"
#include "actors/runtime.h"

namespace chainpump::actors {

class Outcome;

/// What whoever chooses between lanes has to know of one; each may be empty. On the port's thread.
struct LaneEvents {
  std::function<void(const rpc::LaneStats&)> on_stats;  // with its results, after they were told
  std::function<void()> on_lost;                        // at most once
};

class Lane : public std::enable_shared_from_this<Lane> {
 public:
  /// `first` is the port of the lane's rank of the first stage, which has said hello; lanes may
  /// share one.
  Lane(graph::LaneId id, std::shared_ptr<RankPort> first, std::shared_ptr<Outcome> outcome);

  /// Once, first: attaches. What goes wrong with it ends what is submitted.
  void open(LaneEvents events);
  /// One of the callbacks for each sequence.
  void submit(RequestId id, SequenceRequest request, Duration timeout,
              std::vector<SequenceCallbacks> callbacks);
  void cancel(RequestId id);
  /// Leaves the lane: what runs ends with `cancelled`. Not in a callback.
  void close();

 private:
  struct Delivery;
  using Key = std::pair<uint64_t, uint32_t>;  // request, sequence

  void take(const rpc::LaneResults& results);
  void end(Key key, Result<Ok> how);
  /// Of all its sequences.
  void end_request(uint64_t id, const Error& why);
  void lose(const Error& why);
  std::shared_ptr<Delivery> find(Key key);
  std::shared_ptr<RankPort> port();

  const graph::LaneId id_;
  const std::shared_ptr<Outcome> outcome_;
  LaneEvents events_;  // since open()
  std::mutex mutex_;
  std::shared_ptr<RankPort> port_;  // null once closed
  std::map<Key, std::shared_ptr<Delivery>> deliveries_;
  std::optional<Error> lost_by_;
};

}  // namespace chainpump::actors
