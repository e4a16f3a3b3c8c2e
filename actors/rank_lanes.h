// The lanes that one rank serves. Each has its own two links, its own stage loop with its share of
// the KV blocks, and on the first stage its own sequencer and door; what they share is the executor
// (weights, threads, the KV pool), the thread, the clock that counts where its time goes, and the
// listener. A rank in one lane is the same with one of each. What breaks in one lane breaks the
// rank, and with it its other lanes: the process is the unit of failure.
//
//   a lane    connect           links open   fence           a link ended   cut        resume
//   cut       -> opening        -            answered        -              -          refused
//   opening   refused           -> work      -> cut          answered       -          refused
//   work      refused           -            -> draining     -> draining    -          first: goes
//   on draining  refused           -            answered later  -              -> cut     refused
// Each fence has a newer epoch than all that the lane has seen before; links are opened with the
// epoch of the last fence, or a newer one. The first rank of a lane that begins after the plan's
// own epoch takes no client and begins nothing until it is resumed: others may hold what it has to
// know of first. One that has taken over what another held is fenced before it is ever linked.
//
// Thread rule: one thread, the rank's; the waiter may be woken from any.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/commands.h"
#include "actors/lane_executor.h"
#include "actors/lane_server.h"
#include "actors/link_board.h"
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
  /// `rank` is one of the plan's. The plan, the executor, which is divided among the lanes, the
  /// fault and the clock outlive this.
  RankLanes(const graph::Plan& plan, RankId rank, std::shared_ptr<LoopbackHub> hub,
            std::shared_ptr<transport::Waiter> waiter, std::shared_ptr<StepTrace> trace,
            models::StageExecutor& executor, transport::ArmedFault& fault, const Clock& clock);
  ~RankLanes();
  RankLanes(const RankLanes&) = delete;
  RankLanes& operator=(const RankLanes&) = delete;

  /// Where senders of all lanes connect to; as RankLinks::listen().
  Result<std::pair<std::string, uint16_t>> listen(const std::string& address);
  void connect(ConnectCommand command);
  void fence(FenceCommand command);
  void resume(ResumeCommand command);
  /// Where links to be made beside the lanes' come from.
  RankLinks& links() { return links_; }
  bool all_cut() const;
  /// What the rank holds of its lanes was another's: it is asked for that before it is linked.
  void note_taken_over() { took_over_ = true; }
  /// What the rank knows of each of its lanes, for a coordinator that was not there.
  std::vector<rpc::LaneState> states() const;
  /// Why a link of a lane at work has ended, once for each.
  std::optional<Error> take_broken();
  /// The same, as long as it has not been linked again.
  std::optional<Error> broken() const;
  /// Whether links are being opened, which nothing may announce.
  bool opening() const { return !openings_.empty(); }

  /// Opens links, or one turn of one lane; true if anything happened. The rank cannot go on with an
  /// error.
  Result<bool> step();
  void wait_until(TimePoint deadline);

  /// The lane's door, or null: this rank does not serve it, or not as its first stage, or was not
  /// told to connect yet, or others have to be heard first.
  LaneServer* door(graph::LaneId lane);
  /// The door to which the client is attached, or null.
  LaneServer* door_of(uint64_t client);
  /// Ends every request of every lane, and answers what is under way.
  void end_all(const Error& why);

  void close();
  void drain();
  bool closed() const;

  /// What the ends of the links at work have seen.
  std::vector<LinkBoard::Seen> link_ends() const;

  /// What the steps of all lanes have taken.
  rpc::StepTotals step_totals() const;

  /// Fills in lanes, counters and times, the links, and the lanes' queues at the first stage.
  void report(rpc::RankStats& out) const;

 private:
  struct Lane {
    graph::LaneId id;
    graph::EdgePlan input_edge;  // with the ids of this lane's links
    graph::EdgePlan output_edge;
    PlanEpoch epoch;          // the newest seen
    bool awaited = false;     // at the first stage: no client before it was resumed
    bool was_linked = false;  // told to connect, in any epoch
    std::unique_ptr<transport::ReceiveLink> input;  // while opening
    std::unique_ptr<transport::SendLink> output;    // while opening
    rpc::Reply<rpc::StageHoldings> fenced;          // while draining
    uint32_t input_incarnation = 0;                 // of the present links, or the last
    uint32_t output_incarnation = 0;
    bool told_broken = false;
    std::unique_ptr<LaneExecutor> executor;
    std::unique_ptr<StageLoop> loop;
    std::unique_ptr<LaneServer> server;  // on the first stage
  };
  struct Opening {
    std::vector<Lane*> lanes;
    rpc::Reply<Ok> reply;
  };
  bool is_first() const { return stage_.value == 0; }
  void make_loop(Lane& lane, models::StageExecutor& executor);
  Lane* find(graph::LaneId id);
  Result<std::vector<Lane*>> lanes_named(const rpc::ConnectParams& params);
  Status check_connect(const Lane& lane, const rpc::ConnectParams& params) const;
  static void forget_links(const std::vector<Lane*>& lanes);
  Status open(Lane& lane, const rpc::ConnectParams& params);
  Result<bool> is_open(Lane& lane) const;
  bool progress_openings();
  void send_canaries();
  void abandon(Lane& lane, const Error& why);
  bool answer_fences();
  /// Where there are several lanes an error says whose it is.
  Error named(const Lane& lane, const Error& error) const;

  const graph::Plan& plan_;
  const StageIndex stage_;
  const std::shared_ptr<transport::Waiter> waiter_;
  const std::shared_ptr<StepTrace> trace_;
  transport::ArmedFault& fault_;
  const Clock& clock_;
  RankLinks links_;
  StepClock step_clock_;
  graph::StepAccount account_;
  bool begun_ = false;  // links were open once
  bool took_over_ = false;
  std::vector<Lane> lanes_;  // stay where they are
  std::vector<Opening> openings_;
  std::optional<StageTurns> turns_;
};

}  // namespace chainpump::actors
