// The lanes that one rank serves. Each has its own two links, its own stage loop with its share of
// the KV blocks, and on the first stage its own sequencer and door; what they share is the executor
// (weights, threads, the KV pool), the thread, the clock that counts where its time goes, and the
// listener. A rank in one lane is the same with one of each. What breaks in one lane breaks the
// rank, and with it its other lanes: the process is the unit of failure.
//
//   made -> listen() -> open() -> progress_opening() until it says open -> start() -> running
//   running -> close(), then drain() until closed()
//
// Thread rule: one thread, the rank's; the waiter may be woken from any.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/lane_executor.h"
#include "actors/lane_server.h"
#include "actors/rank_links.h"
#include "actors/stage_loop.h"
#include "actors/stage_turns.h"
#include "base/clock.h"
#include "base/step_trace.h"
#include "graph/plan.h"
#include "transport/waiter.h"

namespace chainpump::actors {

class RankLanes {
 public:
  /// `rank` is one of the plan's. The plan and the clock outlive this.
  RankLanes(const graph::Plan& plan, RankId rank, std::shared_ptr<LoopbackHub> hub,
            std::shared_ptr<transport::Waiter> waiter, std::shared_ptr<StepTrace> trace,
            const Clock& clock);
  ~RankLanes();
  RankLanes(const RankLanes&) = delete;
  RankLanes& operator=(const RankLanes&) = delete;

  /// Where senders of all lanes connect to; as RankLinks::listen().
  Result<std::pair<std::string, uint16_t>> listen(const std::string& address);
  /// Begins to open every lane's links. invalid_argument if they are not those of the plan.
  Status open(const rpc::ConnectParams& params);
  /// Whether all links are open; the error of one that failed.
  Result<bool> progress_opening();
  /// Divides the executor, which outlives this, among the lanes.
  void start(models::StageExecutor& executor);

  /// One turn of one lane; true if anything happened. The rank cannot go on with an error.
  Result<bool> step();
  void wait_until(TimePoint deadline) { turns_->wait_until(deadline); }

  /// The lane's door, or null: this rank does not serve it, or not as its first stage.
  LaneServer* door(graph::LaneId lane);
  /// The door to which the client is attached, or null.
  LaneServer* door_of(uint64_t client);
  /// Ends every request of every lane.
  void end_all(const Error& why);

  void close();
  void drain();
  bool closed() const;

  /// Fills in lanes, counters and times, the links, and the lanes' queues at the first stage.
  void report(rpc::RankStats& out) const;

 private:
  struct Lane {
    graph::LaneId id;
    graph::EdgePlan input_edge;  // with the ids of this lane's links
    graph::EdgePlan output_edge;
    std::unique_ptr<transport::ReceiveLink> input;  // while opening
    std::unique_ptr<transport::SendLink> output;    // while opening
    std::unique_ptr<LaneExecutor> executor;
    std::unique_ptr<StageLoop> loop;
    std::unique_ptr<LaneServer> server;  // on the first stage
  };
  bool is_first() const { return stage_.value == 0; }
  void start(Lane& lane, models::StageExecutor& executor);
  /// Where there are several lanes an error says whose it is.
  Error named(const Lane& lane, const Error& error) const;

  const graph::Plan& plan_;
  const StageIndex stage_;
  const std::shared_ptr<transport::Waiter> waiter_;
  const std::shared_ptr<StepTrace> trace_;
  const Clock& clock_;
  RankLinks links_;
  std::optional<StepClock> step_clock_;  // since start()
  std::vector<Lane> lanes_;
  std::optional<StageTurns> turns_;
};

}  // namespace chainpump::actors
