#include "actors/coordinator.h"

#include <caf/typed_event_based_actor.hpp>
#include <map>

#include "actors/convert.h"
#include "actors/lane_links.h"
#include "graph/failure_detector.h"

namespace chainpump::actors {
namespace {

using graph::Deployment;
using graph::LaneId;

// The core decides how long a rank may take; a call's own deadline only bounds a lost answer.
constexpr Duration kCallDeadline = std::chrono::minutes(10);
constexpr Duration kBeatDeadline = std::chrono::seconds(10);
constexpr Duration kShutdownDeadline = std::chrono::seconds(2);

class Coordinator {
 public:
  Coordinator(CoordinatorOptions options, AgentActor agent, DeploymentObserver observer,
              const Clock& clock)
      : options_(std::move(options)),
        agent_(std::move(agent)),
        observer_(std::move(observer)),
        clock_(clock),
        core_(options_.plan, graph::DeploymentLimits{}),
        detector_(graph::FailureDetectorLimits{}),
        processes_(static_cast<size_t>(num_processes(options_.plan))),
        ports_(static_cast<size_t>(num_ranks(options_.plan))) {
    for (int32_t lane = 0; lane < num_lanes(options_.plan); ++lane)
      lanes_.push_back({LaneLinks(options_.plan, LaneId(static_cast<uint8_t>(lane)))});
  }

  void start(CoordinatorActor self) { carry_out(core_.start(clock_.now()), self); }
  void on_event(const CoordinatorEvent& event, CoordinatorActor self) {
    if (!event.of || is_there(*event.of)) step(event.event, self);
  }
  void on_time(CoordinatorActor self) {
    carry_out(core_.on_time(clock_.now()), self);
    look_for_hangs(self);
  }
  std::optional<TimePoint> next_deadline() const {
    const std::optional<TimePoint> own = core_.next_deadline();
    const std::optional<TimePoint> look = detector_.next_deadline();
    return own && look ? std::min(*own, *look) : own ? own : look;
  }
  bool stopped() const { return core_.phase() == Deployment::Phase::stopped; }

  void on_spawned(const RankSpawned& spawned, CoordinatorActor self) {
    if (!is_there(spawned.of)) return;
    at(spawned.of.process).port = spawned.port;
    if (core_.phase() == Deployment::Phase::stopping) return kill(spawned.of.process);
    spawned.port->hello(kCallDeadline, [self, of = spawned.of](Result<rpc::HelloReply> reply) {
      if (!reply.ok()) return tell_failed(self, of, std::move(reply).error());
      tell(self, Deployment::Greeted{of.process}, of);
    });
  }

  void on_loaded(RankLoaded& loaded, CoordinatorActor self) {
    if (!is_there(loaded.of)) return;
    Process& process = at(loaded.of.process);
    process.report = std::move(loaded.report);
    process.is_loaded = true;
    watch(loaded.of.process, self);
    if (options_.finds_hangs) detector_.watch(loaded.of.process, clock_.now());
    step(Deployment::Loaded{loaded.of.process, process.report.numerics_id}, self);
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

  void on_beat(const BeatHeard& beat) {
    if (is_there(beat.of)) detector_.on_answer(beat.of.process, beat.count, clock_.now());
  }

 private:
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
    PlanEpoch fence_epoch = {};
    std::map<ProcessId, rpc::StageHoldings> holdings =
        {};  // of those that were fenced in that epoch
  };

  Process& at(ProcessId process) { return processes_[process.value]; }
  Lane& at(LaneId lane) { return lanes_[lane.value]; }
  ProcessRun run_of(ProcessId process) { return {process, at(process).run}; }
  bool is_there(const ProcessRun& of) { return run_of(of.process) == of; }
  void step(const Deployment::Event& event, const CoordinatorActor& self) {
    carry_out(core_.step(event, clock_.now()), self);
  }

  static void tell_failed(const CoordinatorActor& self, const ProcessRun& of, Error error) {
    if (error.code == ErrorCode::cancelled) return;  // by ourselves
    if (error.code == ErrorCode::disconnected)
      return tell(self, Deployment::Unreachable{of.process, std::move(error)}, of);
    tell(self, Deployment::Failed{of.process, std::move(error)}, of);
  }

  void look_for_hangs(const CoordinatorActor& self) {
    const graph::FailureDetector::Looked looked = detector_.on_time(clock_.now());
    for (const ProcessId process : looked.ask)
      at(process).port->beat(kBeatDeadline, [self, of = run_of(process)](Result<uint64_t> count) {
        caf::anon_send(self, std::make_shared<BeatHeard>(
                                 BeatHeard{of, count.ok() ? std::optional(*count) : std::nullopt}));
      });
    for (const auto& [process, silent_for, answers] : looked.hung)
      step(Deployment::Failed{process,
                              make_error(ErrorCode::deadline_exceeded, "it hangs: {} for {:.2f} s",
                                         answers ? "its computing thread has done nothing"
                                                 : "it has not answered",
                                         std::chrono::duration<double>(silent_for).count())},
           self);
  }

  void carry_out(const std::vector<Deployment::Action>& actions, const CoordinatorActor& self) {
    for (const Deployment::Action& action : actions) carry_out(action, self);
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
        return notice(fmt::format("{}; it is being repaired", action.error.message));
      case Kind::fail:
        return observer_.on_failed(action.error);
      case Kind::shutdown:
        return shutdown(action.process);
      case Kind::kill:
        return kill(action.process);
      case Kind::stopped:
        return observer_.on_stopped();
    }
  }

  void notice(const std::string& what) const {
    if (observer_.on_notice) observer_.on_notice(what);
  }

  void spawn(ProcessId process, const CoordinatorActor& self) {
    at(process) = {.run = at(process).run + 1, .port = nullptr, .report = {}};
    detector_.forget(process);
    caf::anon_send(agent_, std::make_shared<SpawnRank>(SpawnRank{run_of(process)}), self);
  }

  void load(const Deployment::Action& action, const CoordinatorActor& self) {
    rpc::LoadParams params{.plan = to_wire(options_.plan),
                           .rank = action.place.value,
                           .isa = options_.isa,
                           .listen_address = options_.listen_address,
                           .spin_between_ops = options_.spin_between_ops,
                           .cache_folder = options_.cache_folder};
    // What comes later, or stands by, is nothing that anybody waits for.
    const bool is_shown = core_.phase() == Deployment::Phase::starting &&
                          core_.process_in(action.place) == action.process;
    const ProcessRun of = run_of(action.process);
    at(action.process)
        .port->load(
            std::move(params), kCallDeadline,
            [self, of, is_shown, place = action.place, progress = observer_.on_progress](
                int64_t done, int64_t total) {
              tell(self, Deployment::LoadProgressed{of.process}, of);
              if (is_shown) progress(place, done, total);
            },
            [self, of](Result<rpc::LoadReport> report) {
              if (!report.ok()) return tell_failed(self, of, std::move(report).error());
              caf::anon_send(self, std::make_shared<RankLoaded>(RankLoaded{of, *report}));
            });
  }

  void watch(ProcessId process, const CoordinatorActor& self) {
    at(process).is_watched = true;
    at(process).port->watch(true, [self, of = run_of(process)](const Result<Ok>& end) {
      if (!end.ok())
        caf::anon_send(self, std::make_shared<WatchEnded>(WatchEnded{of, end.error()}));
    });
  }

  void fence(const Deployment::Action& action, const CoordinatorActor& self) {
    Lane& lane = at(action.lane);
    if (!lane.away_since) lane.away_since = clock_.now();
    if (lane.fence_epoch != action.epoch) lane.holdings.clear();
    lane.fence_epoch = action.epoch;
    at(action.process)
        .port->fence(action.lane, action.epoch, kCallDeadline,
                     [self, of = run_of(action.process), id = action.lane,
                      epoch = action.epoch](Result<rpc::StageHoldings> holdings) {
                       if (!holdings.ok())
                         return tell_failed(self, of, std::move(holdings).error());
                       caf::anon_send(self, std::make_shared<RankFenced>(
                                                RankFenced{of, id, epoch, std::move(*holdings)}));
                     });
  }

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

  void connect(const Deployment::Action& action, const CoordinatorActor& self) {
    LaneLinks& links = at(action.lane).links;
    if (links.epoch() != action.epoch) links.renew(action.epoch);
    const StageIndex stage = place_of(options_.plan, action.place).stage;
    const RankId next = rank_at(options_.plan, action.lane, links.after(stage));
    at(action.process)
        .port->connect(links.params(stage, at(core_.process_in(next)).report), kCallDeadline,
                       answered(action, self,
                                Deployment::Connected{action.process, action.lane, action.epoch}));
  }

  void resume(const Deployment::Action& action, const CoordinatorActor& self) {
    const Lane& lane = at(action.lane);
    std::vector<rpc::StageHoldings> stages;
    if (lane.fence_epoch == action.epoch)  // else nobody was there to be fenced
      for (const auto& [process, holdings] : lane.holdings) stages.push_back(holdings);
    at(action.process)
        .port->resume(action.lane, action.epoch, std::move(stages), kCallDeadline,
                      answered(action, self, Deployment::Resumed{action.lane, action.epoch}));
  }

  /// Places whose processes are on their way keep the ports of those before, which answer that they
  /// are gone.
  void note_ports() {
    for (uint32_t i = 0; i < ports_.size(); ++i) {
      const Process& process = at(core_.process_in(RankId(i)));
      if (process.is_loaded) ports_[i] = process.port;
    }
  }

  void serve() {
    note_ports();
    std::vector<rpc::LoadReport> reports;
    for (uint32_t i = 0; i < ports_.size(); ++i)
      reports.push_back(at(core_.process_in(RankId(i))).report);
    observer_.on_serving(ports_, reports);
  }

  void lane_serving(const Deployment::Action& action, const CoordinatorActor& self) {
    note_ports();
    observer_.on_repaired(ports_, action.lane, action.first_since, RankId(action.process.value));
    if (const auto since = std::exchange(at(action.lane).away_since, std::nullopt))
      notice(fmt::format("lane {} serves again after {:.2f} s", action.lane,
                         std::chrono::duration<double>(clock_.now() - *since).count()));
    for (const graph::StagePlan& stage : options_.plan.stages) {
      const ProcessId process = core_.process_in(rank_at(options_.plan, action.lane, stage.index));
      if (!at(process).is_watched) watch(process, self);
    }
  }

  // A rank that has not loaded may be busy with that for long and has nothing to close.
  void shutdown(ProcessId process) {
    detector_.forget(process);
    const auto& port = at(process).port;
    if (!port || !at(process).is_loaded) return kill(process);
    port->shutdown(kShutdownDeadline, [port](const Result<Ok>&) {});
  }

  void kill(ProcessId process) {
    detector_.forget(process);
    caf::anon_send(agent_, std::make_shared<KillRank>(KillRank{process}));
  }

  CoordinatorOptions options_;
  AgentActor agent_;
  DeploymentObserver observer_;
  const Clock& clock_;
  Deployment core_;
  graph::FailureDetector detector_;
  std::vector<Process> processes_;                // by number
  std::vector<Lane> lanes_;                       // by id
  std::vector<std::shared_ptr<RankPort>> ports_;  // by place
};

CoordinatorActor::behavior_type coordinator_behavior(CoordinatorActor::pointer self,
                                                     std::shared_ptr<Coordinator> coordinator,
                                                     const Clock* clock) {
  // One timer at most: a deadline that has moved back is looked at again when it would have come.
  const auto armed = std::make_shared<std::optional<TimePoint>>();
  const auto settle = [=] {
    if (coordinator->stopped()) return self->quit();
    const std::optional<TimePoint> deadline = coordinator->next_deadline();
    if (!deadline || (*armed && **armed <= *deadline)) return;
    *armed = deadline;
    self->delayed_send(self, std::max(Duration(0), *deadline - clock->now()), TickAtom::value);
  };
  return {
      [=](StartAtom) { coordinator->start(self), settle(); },
      [=](std::shared_ptr<RankSpawned>& spawned) { coordinator->on_spawned(*spawned, self); },
      [=](std::shared_ptr<RankLoaded>& loaded) {
        coordinator->on_loaded(*loaded, self);
        settle();
      },
      [=](std::shared_ptr<RankFenced>& fenced) {
        coordinator->on_fenced(*fenced, self);
        settle();
      },
      [=](std::shared_ptr<WatchEnded>& ended) {
        coordinator->on_watch_ended(*ended, self);
        settle();
      },
      [=](std::shared_ptr<BeatHeard>& beat) { coordinator->on_beat(*beat); },
      [=](std::shared_ptr<CoordinatorEvent>& event) {
        coordinator->on_event(*event, self);
        settle();
      },
      [=](TickAtom) {
        armed->reset();
        coordinator->on_time(self);
        settle();
      },
  };
}

}  // namespace

void tell(const CoordinatorActor& coordinator, Deployment::Event event,
          std::optional<ProcessRun> of) {
  caf::anon_send(coordinator,
                 std::make_shared<CoordinatorEvent>(CoordinatorEvent{std::move(event), of}));
}

CoordinatorActor spawn_coordinator(caf::actor_system& system, CoordinatorOptions options,
                                   AgentActor agent, DeploymentObserver observer,
                                   const Clock& clock) {
  auto state = std::make_shared<Coordinator>(std::move(options), std::move(agent),
                                             std::move(observer), clock);
  const CoordinatorActor actor = system.spawn(coordinator_behavior, std::move(state), &clock);
  caf::anon_send(actor, StartAtom::value);
  return actor;
}

}  // namespace chainpump::actors
