#include "actors/coordinator.h"

#include <sys/random.h>

#include <caf/typed_event_based_actor.hpp>
#include <set>

#include "actors/convert.h"

namespace chainpump::actors {
namespace {

using graph::Deployment;

// The core decides how long a rank may take; a call's own deadline only bounds a lost answer.
constexpr Duration kCallDeadline = std::chrono::minutes(10);
constexpr Duration kShutdownDeadline = std::chrono::seconds(2);
// A broken connection or link is most often a death, of the rank itself or of its neighbour, whose
// own news says more; it comes within milliseconds, on a busy machine some hundreds of them.
constexpr Duration kDeathNewsMax = std::chrono::milliseconds(700);

uint64_t random_secret() {
  uint64_t secret = 0;
  CHECK_EQ(getrandom(&secret, sizeof secret, 0), static_cast<ssize_t>(sizeof secret));
  return secret;
}

class Coordinator {
 public:
  Coordinator(CoordinatorOptions options, AgentActor agent, DeploymentObserver observer,
              const Clock& clock)
      : options_(std::move(options)),
        agent_(std::move(agent)),
        observer_(std::move(observer)),
        clock_(clock),
        core_(options_.plan, graph::DeploymentLimits{}),
        ports_(options_.plan.stages.size()),
        reports_(options_.plan.stages.size()) {
    for (size_t i = 0; i < options_.plan.edges.size(); ++i) secrets_.push_back(random_secret());
  }

  void start(CoordinatorActor self) { carry_out(core_.start(clock_.now()), self); }
  void on_loaded(RankLoaded& loaded, CoordinatorActor self) {
    reports_[index(loaded.stage)] = std::move(loaded.report);
    loaded_.insert(loaded.stage);
    watch(loaded.stage, self);
    on_event(Deployment::Loaded{loaded.stage, reports_[index(loaded.stage)].numerics_id}, self);
  }
  void on_event(const Deployment::Event& event, CoordinatorActor self) {
    carry_out(core_.step(event, clock_.now()), self);
  }
  void on_time(CoordinatorActor self) { carry_out(core_.on_time(clock_.now()), self); }
  std::optional<TimePoint> next_deadline() const { return core_.next_deadline(); }
  bool stopped() const { return core_.phase() == Deployment::Phase::stopped; }

  void on_spawned(const RankSpawned& spawned, CoordinatorActor self) {
    std::shared_ptr<RankPort>& port = ports_[index(spawned.stage)];
    port = spawned.port;
    if (core_.phase() == Deployment::Phase::stopping) return kill(spawned.stage);
    port->hello(kCallDeadline, [self, stage = spawned.stage](Result<rpc::HelloReply> reply) {
      if (!reply.ok()) return tell_failed(self, stage, std::move(reply).error());
      tell(self, Deployment::Greeted{stage});
    });
  }

 private:
  static size_t index(StageIndex stage) { return static_cast<size_t>(stage.value); }

  static void tell_failed(const CoordinatorActor& self, StageIndex stage, Error error) {
    if (error.code == ErrorCode::cancelled) return;  // by ourselves
    if (error.code != ErrorCode::disconnected)
      return tell(self, Deployment::Failed{stage, std::move(error)});
    caf::delayed_anon_send(self, kDeathNewsMax,
                           std::make_shared<CoordinatorEvent>(
                               CoordinatorEvent{Deployment::Failed{stage, std::move(error)}}));
  }

  void carry_out(const std::vector<Deployment::Action>& actions, const CoordinatorActor& self) {
    using Kind = Deployment::ActionKind;
    for (const Deployment::Action& action : actions) {
      switch (action.kind) {
        case Kind::spawn:
          caf::anon_send(agent_, std::make_shared<SpawnRank>(SpawnRank{action.stage}), self);
          break;
        case Kind::load:
          load(action.stage, self);
          break;
        case Kind::connect:
          connect(action.stage, self);
          break;
        case Kind::serve:
          observer_.on_serving(ports_, reports_);
          break;
        case Kind::fail:
          observer_.on_failed(action.error);
          break;
        case Kind::shutdown:
          shutdown(action.stage);
          break;
        case Kind::kill:
          kill(action.stage);
          break;
        case Kind::stopped:
          observer_.on_stopped();
          break;
      }
    }
  }

  void load(StageIndex stage, const CoordinatorActor& self) {
    rpc::LoadParams params{.plan = to_wire(options_.plan),
                           .stage = stage.value,
                           .isa = options_.isa,
                           .listen_address = options_.listen_address,
                           .spin_between_ops = options_.spin_between_ops,
                           .cache_folder = options_.cache_folder};
    ports_[index(stage)]->load(
        std::move(params), kCallDeadline,
        [self, stage, progress = observer_.on_progress](int64_t done, int64_t total) {
          tell(self, Deployment::LoadProgressed{stage});
          progress(stage, done, total);
        },
        [self, stage](Result<rpc::LoadReport> report) {
          if (!report.ok()) return tell_failed(self, stage, std::move(report).error());
          caf::anon_send(self, std::make_shared<RankLoaded>(RankLoaded{stage, *report}));
        });
  }

  void connect(StageIndex stage, const CoordinatorActor& self) {
    const size_t own = index(stage);
    const size_t num_stages = ports_.size();
    const size_t out_edge = own;
    const size_t in_edge = (own + num_stages - 1) % num_stages;
    const rpc::LoadReport& next = reports_[(own + 1) % num_stages];
    rpc::ConnectParams params;
    params.links.push_back({.edge = options_.plan.edges[out_edge].id.value,
                            .address = next.listen_address,
                            .port = next.listen_port,
                            .secret = secrets_[out_edge]});
    params.accept.push_back(
        {.edge = options_.plan.edges[in_edge].id.value, .secret = secrets_[in_edge]});
    ports_[own]->connect(std::move(params), kCallDeadline, [self, stage](Result<Ok> opened) {
      if (!opened.ok()) return tell_failed(self, stage, std::move(opened).error());
      tell(self, Deployment::Connected{stage});
    });
  }

  void watch(StageIndex stage, const CoordinatorActor& self) {
    ports_[index(stage)]->watch([self, stage](const Result<Ok>& end) {
      if (!end.ok()) tell_failed(self, stage, end.error());
    });
  }

  // A rank that has not loaded may be busy with that for long and has nothing to close.
  void shutdown(StageIndex stage) {
    const auto& port = ports_[index(stage)];
    if (!port || !loaded_.contains(stage)) return kill(stage);
    port->shutdown(kShutdownDeadline, [port](const Result<Ok>&) {});
  }

  void kill(StageIndex stage) {
    caf::anon_send(agent_, std::make_shared<KillRank>(KillRank{stage}));
  }

  CoordinatorOptions options_;
  AgentActor agent_;
  DeploymentObserver observer_;
  const Clock& clock_;
  Deployment core_;
  std::vector<std::shared_ptr<RankPort>> ports_;
  std::vector<rpc::LoadReport> reports_;
  std::set<StageIndex> loaded_;
  std::vector<uint64_t> secrets_;  // by edge
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
      [=](std::shared_ptr<CoordinatorEvent>& event) {
        coordinator->on_event(event->event, self);
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

void tell(const CoordinatorActor& coordinator, Deployment::Event event) {
  caf::anon_send(coordinator,
                 std::make_shared<CoordinatorEvent>(CoordinatorEvent{std::move(event)}));
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
