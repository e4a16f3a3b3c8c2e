// A lane's door, at the rank of its first stage: takes clients' requests in, hands them to the
// sequencer, and hands each client its results, with word of how the lane stands. While there are
// no requests a canary of its own shows now and then that tokens get through.
//
// Thread rule: one thread, that of the stage.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "actors/commands.h"
#include "actors/lane_clients.h"
#include "base/clock.h"
#include "graph/health.h"
#include "graph/plan.h"
#include "graph/sequencer.h"

namespace chainpump::actors {

class LaneServer {
 public:
  /// All outlive this. The sequencer is the lane's.
  LaneServer(const graph::Plan& plan, graph::Sequencer& sequencer, const Clock& clock)
      : plan_(plan), sequencer_(sequencer), clock_(clock), epoch_(plan.epoch) {}

  void attach(AttachCommand command);
  bool has(uint64_t client) const { return clients_.has(client); }
  /// The rest is for clients that are attached here.
  void detach(const DetachCommand& command);
  /// What is wrong with one request is its own end; the answer is for all.
  void submit(SubmitCommand command);
  void cancel(CancelCommand command);
  /// What a step came to.
  void deliver(const graph::Deliveries& deliveries);
  /// Between two steps of a lane at work: sends a canary if one is due (graph/health.h).
  void look_after(TimePoint now);
  /// When look_after() is to be called next.
  std::optional<TimePoint> next_look() const { return canary_.due(); }
  /// The lane is at work in this epoch: nothing has crossed it yet.
  void begin(PlanEpoch epoch);
  /// Ends every request of every client.
  void end_all(const Error& why);
  /// Its queue and blocks as they are now.
  rpc::LaneReport report(graph::LaneId lane) const;

 private:
  Status check(uint64_t client, const rpc::GenerateRequest& request) const;
  Status take_in(RequestId id, rpc::GenerateRequest request);
  void end(const std::vector<RequestId>& ids, const Error& why);
  /// What has gathered; to everyone, even if nothing has.
  void flush(bool to_everyone = false);
  rpc::LaneStats stats();
  graph::SequencerStats sequencer_stats() const;  // without the canary

  const graph::Plan& plan_;
  graph::Sequencer& sequencer_;
  const Clock& clock_;
  LaneClients clients_;
  uint64_t last_request_ = 0;
  PlanEpoch epoch_;
  graph::Canary canary_;
  bool canary_runs_ = false;
  TimePoint told_everyone_;
};

}  // namespace chainpump::actors
