// What the coordinator's actor does with each message: it feeds the core, writes down what the core
// says, and carries that out. Used by actors/coordinator.cc only; one thread, the actor's, but for
// what ports call back, which only tells the actor.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/coordinator.h"
#include "actors/lane_links.h"
#include "actors/os/affinity.h"
#include "graph/changing_deployment.h"
#include "graph/failure_detector.h"
#include "graph/link_watch.h"
#include "graph/slow_watch.h"

namespace chainpump::actors {

/// How far the copies of a move or change are, for who asked for it. Any thread.
struct CopiesProgress {
  explicit CopiesProgress(rpc::OnMoveProgress tell) : progress(std::move(tell)) {}
  const rpc::OnMoveProgress progress;
  std::mutex mutex;
  std::map<uint32_t, std::pair<int64_t, int64_t>> parts;  // done, of all

  void report(uint32_t part, int64_t done, int64_t total) {
    const std::lock_guard lock(mutex);
    parts[part] = {done, total};
    rpc::MoveProgress all{rpc::MoveStep::copying};
    for (const auto& [each, bytes] : parts) {
      all.bytes_done += bytes.first;
      all.bytes_total += bytes.second;
    }
    progress(all);
  }
};

class CoordinatorShell {
 public:
  CoordinatorShell(CoordinatorOptions options, AgentActor agent, DeploymentObserver observer,
                   const Clock& clock)
      : options_(std::move(options)),
        agent_(std::move(agent)),
        observer_(std::move(observer)),
        clock_(clock),
        core_(options_.plan, graph::DeploymentLimits{},
              options_.before.value_or(graph::DeploymentRecord{})),
        detector_(graph::failure_limits(options_.plan)),
        link_watch_(graph::failure_limits(options_.plan).hang_max -
                    2 * graph::failure_limits(options_.plan).period),
        ports_(static_cast<size_t>(num_ranks(options_.plan))) {
    make_lanes();
  }

  void start(CoordinatorActor self) {
    if (options_.before) return caf::anon_send(agent_, FindAtom::value, self);
    is_begun_ = true;
    carry_out(core_.start(clock_.now()), self);
  }
  void on_event(const CoordinatorEvent& event, CoordinatorActor self) {
    if (!is_begun_) return early_.push_back(event);
    if (event.of && !is_there(*event.of)) return;
    if (const auto* taking = std::get_if<Deployment::TakingIn>(&event.event))
      copies_to_[{taking->process, taking->part}] = {taking->address, taking->port};
    step(event.event, self);
  }

  /// Takes over: whoever runs is asked what it is, as one that was spawned is.
  void on_found(RanksFound& found, CoordinatorActor self);
  void on_time(CoordinatorActor self) {
    carry_out(core_.on_time(clock_.now()), self);
    look_for_hangs(self);
    look_for_slow(self);
  }
  std::optional<TimePoint> next_deadline() const {
    const std::optional<TimePoint> own = core_.next_deadline();
    const std::optional<TimePoint> look = detector_.next_deadline();
    return own && look ? std::min(*own, *look) : own ? own : look;
  }
  void answer_beats() { options_.beats->answer_all(); }
  bool stopped() const { return core_.phase() == Deployment::Phase::stopped; }

  void on_spawned(const RankSpawned& spawned, CoordinatorActor self) {
    if (!is_there(spawned.of)) return;
    at(spawned.of.process).port = spawned.port;
    if (!core_.is_wanted(spawned.of.process)) return kill(spawned.of.process);
    greet(spawned.of.process, self);
  }

  void on_loaded(RankLoaded& loaded, CoordinatorActor self) {
    if (!is_there(loaded.of)) return;
    Process& process = at(loaded.of.process);
    process.report = std::move(loaded.report);
    process.is_loaded = true;
    watch(loaded.of.process, self);
    // While many start at once on few cores, who waits for a turn cannot be told from who hangs.
    if (core_.phase() == Deployment::Phase::serving) watch_for_hangs(loaded.of.process);
    Deployment::Loaded event{loaded.of.process, process.report.numerics_id};
    for (const rpc::LaneState& lane : process.report.lanes)
      event.lanes.emplace_back(LaneId(lane.lane), graph::LaneSeen{.epoch = PlanEpoch(lane.epoch),
                                                                  .linked = lane.linked,
                                                                  .at_work = lane.at_work});
    step(event, self);
  }

  void on_fenced(RankFenced& fenced, CoordinatorActor self) {
    if (!is_there(fenced.of)) return;
    Lane& lane = at(fenced.lane);
    at(fenced.of.process).report.listen_port = fenced.holdings.listen_port;
    if (lane.fence_epoch == fenced.epoch)
      lane.holdings[fenced.of.process] = std::move(fenced.holdings);
    step(Deployment::Fenced{fenced.of.process, fenced.lane, fenced.epoch}, self);
  }

  /// It is called again when the lane has been repaired: what is still broken is told at once then.
  void on_watch_ended(const WatchEnded& ended, CoordinatorActor self) {
    if (!is_there(ended.of)) return;
    const ProcessId process = ended.of.process;
    at(process).is_watched = false;
    if (ended.error.code == ErrorCode::cancelled) return;  // it leaves
    if (ended.error.code == ErrorCode::disconnected)
      return step(Deployment::LinkBroken{process, ended.error}, self);
    step(Deployment::Failed{process, ended.error}, self);
  }

  void on_beat(const BeatHeard& heard, const CoordinatorActor& self);
  void on_move(MoveRank& move, const CoordinatorActor& self);
  void on_change(ChangePlan& change, const CoordinatorActor& self);

 private:
  using Deployment = graph::Deployment;
  using LaneId = graph::LaneId;
  // The core decides how long a rank may take; a call's own deadline only bounds a lost answer.
  static constexpr Duration kCallDeadline = std::chrono::minutes(10);
  static constexpr Duration kLoadDeadline = Duration::max();  // it may fetch weights, for hours
  static constexpr Duration kBeatDeadline = std::chrono::seconds(10);
  static constexpr Duration kShutdownDeadline = std::chrono::seconds(2);

  struct Process {
    uint32_t run = 0;  // how many have had the number
    std::shared_ptr<RankPort> port;
    rpc::LoadReport report;
    bool is_loaded = false;
    bool is_watched = false;
  };
  struct Lane {
    LaneLinks links;
    std::optional<TimePoint> away_since = {};  // since a repair began
    PlanEpoch away_in = {};                    // the repair's epoch
    std::string why_away = {};
    PlanEpoch fence_epoch = {};
    std::map<ProcessId, rpc::StageHoldings> holdings =
        {};  // of those that were fenced in that epoch
  };

  Process& at(ProcessId process) { return processes_[process]; }
  Lane& at(LaneId lane) { return lanes_[lane.value]; }
  ProcessRun run_of(ProcessId process) { return {process, at(process).run}; }
  bool is_there(const ProcessRun& of) { return run_of(of.process) == of; }
  /// One for each lane of the plan; what was gathered of a lane that there was is kept.
  void make_lanes();
  void step(const Deployment::Event& event, const CoordinatorActor& self) {
    carry_out(core_.step(event, clock_.now()), self);
  }

  static void tell_failed(const CoordinatorActor& self, const ProcessRun& of, Error error) {
    if (error.code == ErrorCode::cancelled) return;  // by ourselves
    if (error.code == ErrorCode::disconnected)
      return tell(self, Deployment::Unreachable{of.process, std::move(error)}, of);
    tell(self, Deployment::Failed{of.process, std::move(error)}, of);
  }

  void look_for_hangs(const CoordinatorActor& self);
  void look_for_slow(const CoordinatorActor& self);
  std::string why_slow(RankId place) const;
  std::string slow_ranks(LaneId lane) const;

  void carry_out(std::vector<Deployment::Action> actions, const CoordinatorActor& self) {
    if (const Status written = write_down(); !written.ok())
      actions = give_up(actions, written.error());
    for (const Deployment::Action& action : actions) carry_out(action, self);
  }

  /// First of all, if it is other than what was written last.
  Status write_down();

  /// In place of the actions, none of which may be done.
  std::vector<Deployment::Action> give_up(const std::vector<Deployment::Action>& undone,
                                          const Error& why);

  void greet(ProcessId process, const CoordinatorActor& self) {
    const ProcessRun of = run_of(process);
    if (!at(process).port)
      return tell_failed(self, of,
                         make_error(ErrorCode::disconnected, "it does not listen any more"));
    at(process).port->hello(kCallDeadline, [self, of](Result<rpc::HelloReply> reply) {
      if (!reply.ok()) return tell_failed(self, of, std::move(reply).error());
      tell(self, Deployment::Greeted{of.process}, of);
    });
  }

  void carry_out(const Deployment::Action& action, const CoordinatorActor& self) {
    using Kind = Deployment::ActionKind;
    switch (action.kind) {
      case Kind::spawn:
        return spawn(action.process, self);
      case Kind::load:
        return load(action, self);
      case Kind::fence:
        return fence(action, self);
      case Kind::connect:
        return connect(action, self);
      case Kind::resume:
        return resume(action, self);
      case Kind::serve:
        return serve();
      case Kind::lane_serving:
        return lane_serving(action, self);
      case Kind::repairing:
        note_lanes_away(action.error.message);
        return notice(fmt::format("{}; it is being repaired", action.error.message));
      case Kind::fail:
        return observer_.on_failed(action.error);
      case Kind::shutdown:
        return shutdown(action.process);
      case Kind::kill:
        return kill(action.process);
      case Kind::stopped:
        return observer_.on_stopped();
      case Kind::take_in:
        return take_in(action, self);
      case Kind::copy:
        return copy(action, self);
      case Kind::finish:
        return finish_copy(action, self);
      case Kind::moved:
      case Kind::not_moved:
        return end_move(action);
      case Kind::ready:
        return;  // never said
      case Kind::switched:
        return switch_over();
      case Kind::changed:
      case Kind::not_changed:
        return end_change(action);
    }
  }

  void notice(const std::string& what) const {
    if (observer_.on_notice) observer_.on_notice(what);
  }

  void spawn(ProcessId process, const CoordinatorActor& self) {
    at(process) = {.run = at(process).run + 1, .port = nullptr, .report = {}};
    detector_.forget(process);
    slow_watch_.forget(process);
    caf::anon_send(agent_, std::make_shared<SpawnRank>(SpawnRank{run_of(process)}), self);
  }

  bool spins(ProcessId process) const;
  void load(const Deployment::Action& action, const CoordinatorActor& self);

  void watch(ProcessId process, const CoordinatorActor& self) {
    at(process).is_watched = true;
    at(process).port->watch(true, [self, of = run_of(process)](const Result<Ok>& end) {
      if (!end.ok())
        caf::anon_send(self, std::make_shared<WatchEnded>(WatchEnded{of, end.error()}));
    });
  }

  void note_lanes_away(const std::string& why);
  void tell_lanes() const;
  void watch_for_hangs(ProcessId process) {
    if (options_.finds_hangs) detector_.watch(process, clock_.now());
  }
  void fence(const Deployment::Action& action, const CoordinatorActor& self);

  /// A connect or a resume: if it fails, that may be the fault of another.
  rpc::Callback<Ok> answered(const Deployment::Action& action, const CoordinatorActor& self,
                             Deployment::Event well) {
    return [self, of = run_of(action.process), lane = action.lane, epoch = action.epoch,
            well = std::move(well)](Result<Ok> done) {
      if (done.ok()) return tell(self, well, of);
      Error error = std::move(done).error();
      if (error.code == ErrorCode::cancelled) return;  // a new epoch began
      tell(self, Deployment::CallFailed{of.process, lane, epoch, std::move(error)}, of);
    };
  }

  void connect(const Deployment::Action& action, const CoordinatorActor& self);

  // Of a move (coordinator_moves.cc).
  void begin_copies(rpc::OnMoveProgress progress);
  rpc::KvCopy copy_of(const Deployment::Action& action) const;
  rpc::Callback<Ok> moved_on(const Deployment::Action& action, const CoordinatorActor& self,
                             Deployment::Event well);
  void take_in(const Deployment::Action& action, const CoordinatorActor& self);
  void copy(const Deployment::Action& action, const CoordinatorActor& self);
  void finish_copy(const Deployment::Action& action, const CoordinatorActor& self);
  void end_move(const Deployment::Action& action);
  // Of a change of plan (coordinator_changes.cc).
  Status may_change(const ChangePlan& change) const;
  void switch_over();
  void end_change(const Deployment::Action& action);
  std::vector<LaneFirst> firsts() const;

  void resume(const Deployment::Action& action, const CoordinatorActor& self);

  /// Places whose processes are on their way keep the ports of those before, which answer that they
  /// are gone.
  void note_ports() {
    for (uint32_t i = 0; i < ports_.size(); ++i) {
      const Process& process = at(core_.process_in(RankId(i)));
      if (process.is_loaded) ports_[i] = process.port;
    }
  }

  void serve();

  void lane_serving(const Deployment::Action& action, const CoordinatorActor& self);

  // A rank that has not loaded may be busy with that for long and has nothing to close.
  void shutdown(ProcessId process) {
    detector_.forget(process);
    const auto& port = at(process).port;
    if (!port || !at(process).is_loaded) return kill(process);
    port->shutdown(kShutdownDeadline, [port](const Result<Ok>&) {});
  }

  void kill(ProcessId process) {
    detector_.forget(process);
    slow_watch_.forget(process);
    caf::anon_send(agent_, std::make_shared<KillRank>(KillRank{process}));
  }

  CoordinatorOptions options_;
  AgentActor agent_;
  DeploymentObserver observer_;
  const Clock& clock_;
  graph::ChangingDeployment core_;
  graph::FailureDetector detector_;
  graph::LinkWatch link_watch_;
  graph::SlowWatch slow_watch_;
  bool is_begun_ = false;
  bool is_announced_ = false;            // that it serves
  std::vector<CoordinatorEvent> early_;  // that came before it was begun
  std::optional<graph::DeploymentRecord> written_;
  std::map<ProcessId, Process> processes_;                              // by number
  std::vector<Lane> lanes_;                                             // by id
  std::vector<std::shared_ptr<RankPort>> ports_;                        // by place
  std::optional<MoveRank> asked_;                                       // the move under way
  std::optional<ChangePlan> change_;                                    // the change under way
  bool has_switched_ = false;                                           // to its plan
  std::shared_ptr<CopiesProgress> copied_;                              // of either
  uint64_t copy_secret_ = 0;                                            // of its links
  std::map<std::pair<ProcessId, uint32_t>, rpc::KvAddress> copies_to_;  // by part
};

}  // namespace chainpump::actors
