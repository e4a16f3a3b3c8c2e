// One rank's life, without CAF: load the stage, serve its lanes, answer questions, leave. It serves
// one lane or several; actors/rank_lanes.h says what becomes of each, with their links.
//
// It may copy what it holds to another that is to take its place, or be that one
// (actors/rank_copies.h).
//
//   state      load        connect, fence, resume   a step fails   shutdown
//   empty      -> ready    refused                  -              -> gone
//   ready      the same    the lanes'               -> broken      -> leaving
//   broken     refused     refused                  -              -> gone
//   leaving    refused     refused                  -              refused
//   leaving -> gone when all links have closed or a second has passed
//
// A broken stage has answered every request and every watch with the reason and does nothing more:
// whoever watches ends it. It is not its own judge. Its links stay open, so that its neighbours do
// not break too and hide whose fault it was. A lane whose link has ended is no broken stage: it is
// told to those who watch links, and waits to be fenced and connected again.
//
// Thread rule: one thread, that of its actor, which calls tick() whenever it has nothing else to do
// while ticking() is true; the waiter may be woken from any thread.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "actors/commands.h"
#include "actors/link_board.h"
#include "actors/rank_copies.h"
#include "actors/rank_lanes.h"
#include "base/beat.h"
#include "base/clock.h"
#include "graph/plan.h"
#include "models/stage_executor.h"
#include "transport/waiter.h"

namespace chainpump::actors {

class RankStage {
 public:
  /// Whoever shares the waiter may wake tick(); whoever shares trace, beat and board may read them.
  RankStage(std::shared_ptr<LoopbackHub> hub, std::shared_ptr<transport::Waiter> waiter,
            std::shared_ptr<StepTrace> trace, std::shared_ptr<Beat> beat, const Clock& clock,
            std::shared_ptr<LinkBoard> board = std::make_shared<LinkBoard>());
  ~RankStage();

  void load(LoadCommand command);
  void connect(ConnectCommand command);
  void attach(AttachCommand command);
  void detach(const DetachCommand& command);
  void submit(SubmitCommand command);
  void cancel(CancelCommand command);
  void stats(StatsCommand command);
  void shutdown(ShutdownCommand command);
  void watch(WatchCommand command);
  void fence(FenceCommand command);
  void resume(ResumeCommand command);
  void arm(ArmCommand command);
  void take_in(TakeInCommand command);
  void copy(CopyCommand command);
  void finish_copy(FinishCopyCommand command);

  /// Whether tick() has anything to do or to wait for.
  bool ticking() const;
  /// Does what can be done now; else waits for work, being woken, or at most kTickWaitMax.
  void tick();
  bool gone() const { return state_ == State::gone; }
  /// Ends the wait of the present or the next tick(). Any thread.
  void wake() { waiter_->wake(); }

 private:
  enum class State : uint8_t { empty, ready, broken, leaving, gone };
  Result<rpc::LoadReport> load_stage(const LoadCommand& command);
  void load_again(LoadCommand command);
  std::optional<Error> why_not_ready(const char* call) const;
  std::optional<Error> why_no_door(const char* call) const;
  void break_down(const Error& error);
  void answer_watchers(const Error& why, bool of_links_only = false);
  rpc::RankStats report() const;
  const graph::StagePlan& stage_plan() const {
    return plan_.stages[static_cast<size_t>(place_.stage.value)];
  }

  const Clock& clock_;
  const std::shared_ptr<LoopbackHub> hub_;
  const std::shared_ptr<transport::Waiter> waiter_;
  const std::shared_ptr<StepTrace> trace_;
  const std::shared_ptr<Beat> beat_;
  const std::shared_ptr<LinkBoard> board_;
  TimePoint posted_;  // on the board
  transport::ArmedFault fault_;
  State state_ = State::empty;
  graph::Plan plan_;
  graph::RankPlace place_;
  RankId rank_;
  rpc::LoadReport report_;  // of the load
  std::unique_ptr<models::StageExecutor> executor_;
  std::unique_ptr<RankLanes> lanes_;    // since it is loaded
  std::unique_ptr<RankCopies> copies_;  // likewise
  Error broken_by_;
  std::vector<WatchCommand> watchers_;
  TimePoint leave_deadline_;
  rpc::Reply<Ok> left_;
};

}  // namespace chainpump::actors
