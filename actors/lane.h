// A lane as this process uses it: submits sequences to the rank of its first stage, and sees to it
// that each gets every token in order up to the one that ends it, or an error, and exactly one end.
// That rank may die: what runs is kept, with what was told of it, until the lane has another first
// rank, and goes on there (actors/lane_delivery.h). Its callers notice a pause.
//
//   the lane   submit           cancel       results   connection lost   reopen     the deployment
//                                                      or refused                   has ended
//   away       keeps, if there  ends it      (older:   -                 -> open:   ends all,
//              is room          itself       void)                       gives all  refuses more
//   open       gives to rank    tells rank   are told  -> away           -> open    -
//   closed     cancelled        -            void      -                 -          -
//
// A lane may give up what it has to others, which go on with it as its own next rank would have.
//
//   a sequence, when its lane's connection is lost    comes to
//   its last token or score was told                  its end, ok
//   some of it were lost on the way                   its end, internal
//   somebody has cancelled it                         its end, cancelled
//   a rank was given it                               that alone, from what was told on, with room
//                                                     beyond the queue's bound
//   no rank was given it yet                          its request as it is, all sequences together
//   and in a lane that is away, when its time is up   its end, deadline_exceeded
//
// Which rank is which says the epoch since when it is the lane's first; a call or result of another
// connection than the present one is void.
//
// Thread rule: any thread. Callbacks, one at a time, on a thread of a port, in reopen(), on_time()
// and close(), and, for a submit that cannot be, in submit(). A callback may submit() and cancel().
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/in_turn.h"
#include "actors/lane_delivery.h"
#include "actors/rank_port.h"

namespace chainpump::actors {

class Outcome;

/// What whoever has the lane sees to; each may be empty, must be short and call nothing of it.
struct LaneEvents {
  std::function<void()> on_open;
  std::function<void()> on_away;
  /// After its results were told. What the rank was given again when the lane was opened, it did
  /// not take.
  std::function<void(const rpc::LaneStats&)> on_stats;
  /// Wants on_time() to be called then, at once if that is over; not in this call.
  std::function<void(TimePoint)> wake_at;
};

inline constexpr Duration kLaneControlDeadline = std::chrono::seconds(5);

struct LaneOptions {
  graph::LaneId id;
  int32_t max_waiting = 1024;  // sequences, in a lane that is away, with which it takes one more
};

class Lane : public std::enable_shared_from_this<Lane> {
 public:
  /// It is away. The clock outlives it.
  Lane(LaneOptions options, std::shared_ptr<Outcome> outcome, LaneEvents events,
       const Clock& clock);

  /// `first` is the port of the lane's rank of the first stage, which was told hello; lanes may
  /// share one. It is that since `since`: an epoch that is not newer than the last is void, unless
  /// it is the last, and the connection was lost.
  void reopen(std::shared_ptr<RankPort> first, PlanEpoch since);
  /// One of the callbacks for each sequence. overloaded, as their end, if it is away and too many
  /// wait.
  void submit(RequestId id, SequenceRequest request, Duration timeout,
              std::vector<SequenceCallbacks> callbacks);
  /// One that does not run here is no error.
  void cancel(RequestId id);
  void on_time();
  /// Sequences that go on together; each with its index in its request.
  using Together = std::vector<std::pair<uint32_t, std::shared_ptr<LaneDelivery>>>;
  /// Has it run when nothing is told.
  void in_turn(std::function<void()> what) { turn_.run(std::move(what)); }
  /// Lets go of all that may go on in another lane; in turn. `then` is to be called afterwards: its
  /// rank, if there is one, need not go on with it.
  std::vector<Together> give_up(std::function<void()>& then);
  /// Takes in what another lane gave up. What it returns is to be called afterwards.
  std::function<void()> go_on(const Together& together);
  /// The outcome has a reason why the deployment does not serve any more.
  void deployment_ended();
  /// Leaves the lane: what runs ends with `cancelled` before this returns. Not in a callback.
  void close();

 private:
  using Key = std::pair<uint64_t, uint32_t>;  // request on the wire, sequence; as they came
  using Deliveries = std::map<Key, std::shared_ptr<LaneDelivery>>;
  struct End {
    std::shared_ptr<LaneDelivery> delivery;
    Result<Ok> how;
  };
  /// Requests for the present rank, in calls of a bounded size.
  using Batches = std::vector<std::vector<rpc::GenerateRequest>>;

  // Any thread:
  Status may_wait(size_t num_sequences) const;  // under the lock
  void wake_at(TimePoint when);                 // under the lock
  void release(std::shared_ptr<RankPort> port);
  void give(RankPort& port, uint64_t connection, std::vector<rpc::GenerateRequest> requests);
  void pass_cancels_again(const std::vector<uint64_t>& wire_ids);

  // In turn:
  void open(std::shared_ptr<RankPort> first);
  void take(const rpc::LaneResults& results);
  void refused(const std::vector<uint64_t>& wire_ids, const Error& why);
  void lose(const Error& why);
  std::vector<End> leave();                     // under the lock: the ends of what does not go on
  std::vector<End> due();                       // under the lock
  std::vector<uint64_t> to_cancel();            // under the lock
  std::vector<End> take_all(const Error& why);  // under the lock
  Batches batches_of_kept();                    // under the lock
  static std::vector<Together> groups(Deliveries deliveries);
  rpc::GenerateRequest take_in(const Together& together, bool gives);  // under the lock
  template <typename Token>
  void take_each(const std::vector<Token>& results);
  void tell(const std::vector<End>& ends);
  /// Calls `what` in turn, if this is still the connection then.
  template <typename What>
  void on_connection(uint64_t connection, What what);

  const LaneOptions options_;
  const std::shared_ptr<Outcome> outcome_;
  const LaneEvents events_;
  const Clock& clock_;
  InTurn turn_;

  std::mutex mutex_;                // what is below; never held in a call of others but wake_at
  std::shared_ptr<RankPort> port_;  // null: away, or closed
  std::vector<std::shared_ptr<RankPort>> retired_;  // that somebody used to the last
  uint64_t connection_ = 0;                         // counts them
  PlanEpoch since_{0};
  std::string lost_by_;  // what the last went by, for a message
  bool closed_ = false;
  Deliveries deliveries_;
  uint64_t last_wire_id_ = 0;
  uint64_t num_again_ = 0;  // requests given when the lane was opened
  std::optional<TimePoint> wake_due_;
};

}  // namespace chainpump::actors
