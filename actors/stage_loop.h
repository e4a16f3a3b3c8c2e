// What one stage does for one lane, over and over: take a microbatch, run it, hand the activation
// on. The first stage takes its microbatches from the sequencer core, which it hosts (one thread
// wake less per token than an actor of its own would cost), and its input link is the return edge;
// every other stage takes them from its input link. The last stage's output link is the return
// edge. With one stage both are the two ends of one loopback link.
//
// A stage runs only when it has input, a free output slot and a credit. Its executor writes
// straight into the slot, and a frame's metadata is forwarded as it came, but for the time of the
// slowest stage so far, which is patched in place.
//
//   state      link()     fence()       a link ended      input at its end, output ended
//   cut        -> work    cut           -                 -
//   work       a bug      -> draining   -> draining       -
//   draining   a bug      draining      draining          -> cut
// Draining, a stage runs what has come to it, though its output may lead nowhere any more; the
// first begins nothing. It ends its output when its input has ended, so that one stage after the
// other does. Fenced, it waits for an input over which nothing comes for a second, no longer: what
// a silent network holds is computed again. After that the first stage begins nothing until
// resume(), however often it is linked.
//
// A rank in several lanes has a loop for each, over one executor (actors/lane_executor.h), in turns
// (actors/stage_turns.h); the clock that counts where its time goes is the rank's.
//
// Thread rule: one thread, that of the executor and the links. Knows neither CAF nor RPC.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "actors/stage_work.h"
#include "actors/step_clock.h"
#include "base/clock.h"
#include "base/result.h"
#include "base/step_trace.h"
#include "graph/sequencer.h"
#include "graph/step_account.h"
#include "models/stage_executor.h"
#include "transport/link.h"
#include "transport/waiter.h"

namespace chainpump::actors {

struct StageLoopOptions {
  StageWorkOptions work;
  std::shared_ptr<StepTrace> trace;                  // where each step is recorded; may be null
  graph::StepAccount* account = nullptr;             // the rank's; outlives this; may be null
  std::optional<graph::SequencerOptions> sequencer;  // set iff it is the first stage
};

class StageLoop {
 public:
  /// Called, in this loop's thread, with what each StepResult meant and which requests ran out of
  /// time (first stage only).
  using OnDeliveries = std::function<void(const graph::Deliveries&)>;

  /// Cut. The links wake the waiter.
  StageLoop(const StageLoopOptions& options, models::StageExecutor& executor,
            OnDeliveries on_deliveries, transport::Waiter& waiter, StepClock& clock);
  ~StageLoop();
  StageLoop(const StageLoop&) = delete;
  StageLoop& operator=(const StageLoop&) = delete;

  /// Both open and of this epoch, when it is cut.
  void link(std::unique_ptr<transport::ReceiveLink> input,
            std::unique_ptr<transport::SendLink> output, PlanEpoch epoch);
  void fence();
  /// The first stage goes on; `stages` as in Sequencer::repair(), or adopt() if it was to be held.
  void resume(std::span<const graph::StageHoldings> stages);
  bool is_cut() const { return !input_; }
  bool at_work() const { return input_ && !draining_; }
  /// Only at the first stage: whether resume() has to come.
  bool is_held() const { return held_; }
  /// It has to, because others may hold what an earlier first stage had them compute.
  void hold() { held_ = is_new_ = true; }
  /// Why a link ended at which work was going on, since it was linked.
  const std::optional<Error>& broken_by() const { return broken_by_; }
  /// When it is cut.
  graph::StageHoldings holdings() const { return work_.holdings(); }

  /// Moves the links along and runs what can be run; true if anything happened. An error means that
  /// this stage cannot go on (a frame made no sense, the executor failed): it names the cause.
  Result<bool> step();

  /// What there is to wait for when step() moved nothing.
  StepPart waiting_for() const;
  /// When step() has something to do though nothing comes: a request's deadline.
  std::optional<TimePoint> next_deadline() const;

  /// The sequencer, to submit to and cancel in; only at the first stage.
  graph::Sequencer& sequencer();

  /// Starts a clean close of both links; closed() says when it is done. No step() afterwards.
  void close();
  /// Drops what still arrives: a link closes when its last frame has been taken.
  void drain();
  bool closed() const;

  uint64_t num_steps() const { return steps_; }
  uint64_t num_tokens() const { return tokens_; }
  const StageWork::Again& again() const { return work_.again(); }
  TimePoint looked_at_links() const { return looked_; }
  /// Of all links that it had.
  uint64_t num_refused() const;
  /// Frames of another epoch than that of their link, which links refuse: counted once more, by
  /// what the control plane said of the epoch.
  uint64_t num_stale() const { return stale_; }
  /// Of the present links; all zero when it is cut.
  transport::LinkStats input_stats() const;
  transport::LinkStats output_stats() const;

 private:
  Result<bool> take_result();
  bool end_overdue();
  Result<bool> run_scheduled();
  Result<bool> run_received();
  Status run(const graph::Microbatch& microbatch, std::span<const float> input,
             std::span<std::byte> metadata, TimePoint received);
  void send(MicrobatchId microbatch, std::span<std::byte> metadata, int64_t num_floats,
            Duration spent);
  std::unique_ptr<transport::ReceivedFrame> receive();
  void pass(transport::FaultPoint point);
  void look_at_links();
  void begin_draining();
  bool end_draining();
  bool has_input() const;
  void cut();
  bool leads_on() const;
  bool has_slot(bool has_input);
  std::span<float> room_for(const graph::Microbatch& microbatch);

  StageLoopOptions options_;
  models::StageExecutor& executor_;
  StageWork work_;
  std::unique_ptr<transport::ReceiveLink> input_;  // null when it is cut, as is the other
  std::unique_ptr<transport::SendLink> output_;
  PlanEpoch epoch_;                     // of the links
  TimePoint looked_;                    // at the links
  std::optional<TimePoint> fenced_at_;  // or the last frame since then
  bool draining_ = false;
  bool held_ = false;
  bool is_new_ = false;  // until it is resumed
  std::optional<Error> broken_by_;
  std::optional<graph::Sequencer> sequencer_;
  OnDeliveries on_deliveries_;
  transport::Waiter& waiter_;
  StepClock& clock_;
  // Declared after the links: both must go before their link does.
  std::unique_ptr<transport::ReceivedFrame> frame_;  // received, not yet run
  // A result that was taken: its credit goes back when the next step is done, not before it starts,
  // because a token waits for that step. The return edge has a slot for every microbatch.
  std::unique_ptr<transport::ReceivedFrame> taken_;
  std::unique_ptr<transport::SendSlot> slot_;  // acquired, not yet filled
  graph::StepResult result_;
  graph::Deliveries deliveries_;
  std::vector<std::byte> metadata_;
  std::vector<float> nowhere_;  // where rows go that no link takes any more
  // Of the next step's event: its input has come and found no slot free, since when, until when.
  std::optional<TimePoint> credit_from_;
  std::optional<TimePoint> credit_until_;
  uint64_t steps_ = 0;
  uint64_t tokens_ = 0;
  uint64_t refused_ = 0;  // of links that are no more
  uint64_t stale_ = 0;
};

}  // namespace chainpump::actors
