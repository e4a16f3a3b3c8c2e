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
        ports_(static_cast<size_t>(num_ranks(options_.plan))),
        reports_(static_cast<size_t>(num_ranks(options_.plan))) {
    const size_t num_links =
        options_.plan.edges.size() * static_cast<size_t>(num_lanes(options_.plan));
    for (size_t i = 0; i < num_links; ++i) secrets_.push_back(random_secret());
  }

  void start(CoordinatorActor self) { carry_out(core_.start(clock_.now()), self); }
  void on_loaded(RankLoaded& loaded, CoordinatorActor self) {
    reports_[index(loaded.rank)] = std::move(loaded.report);
    loaded_.insert(loaded.rank);
    watch(loaded.rank, self);
    on_event(Deployment::Loaded{loaded.rank, reports_[index(loaded.rank)].numerics_id}, self);
  }
  void on_event(const Deployment::Event& event, CoordinatorActor self) {
    carry_out(core_.step(event, clock_.now()), self);
  }
  void on_time(CoordinatorActor self) { carry_out(core_.on_time(clock_.now()), self); }
  std::optional<TimePoint> next_deadline() const { return core_.next_deadline(); }
  bool stopped() const { return core_.phase() == Deployment::Phase::stopped; }

  void on_spawned(const RankSpawned& spawned, CoordinatorActor self) {
    std::shared_ptr<RankPort>& port = ports_[index(spawned.rank)];
    port = spawned.port;
    if (core_.phase() == Deployment::Phase::stopping) return kill(spawned.rank);
    port->hello(kCallDeadline, [self, rank = spawned.rank](Result<rpc::HelloReply> reply) {
      if (!reply.ok()) return tell_failed(self, rank, std::move(reply).error());
      tell(self, Deployment::Greeted{rank});
    });
  }

 private:
  static size_t index(RankId rank) { return rank.value; }

  static void tell_failed(const CoordinatorActor& self, RankId rank, Error error) {
    if (error.code == ErrorCode::cancelled) return;  // by ourselves
    if (error.code != ErrorCode::disconnected)
      return tell(self, Deployment::Failed{rank, std::move(error)});
    caf::delayed_anon_send(self, kDeathNewsMax,
                           std::make_shared<CoordinatorEvent>(
                               CoordinatorEvent{Deployment::Failed{rank, std::move(error)}}));
  }

  void carry_out(const std::vector<Deployment::Action>& actions, const CoordinatorActor& self) {
    using Kind = Deployment::ActionKind;
    for (const Deployment::Action& action : actions) {
      switch (action.kind) {
        case Kind::spawn:
          caf::anon_send(agent_, std::make_shared<SpawnRank>(SpawnRank{action.rank}), self);
          break;
        case Kind::load:
          load(action.rank, self);
          break;
        case Kind::connect:
          connect(action.rank, self);
          break;
        case Kind::serve:
          observer_.on_serving(ports_, reports_);
          break;
        case Kind::fail:
          observer_.on_failed(action.error);
          break;
        case Kind::shutdown:
          shutdown(action.rank);
          break;
        case Kind::kill:
          kill(action.rank);
          break;
        case Kind::stopped:
          observer_.on_stopped();
          break;
      }
    }
  }

  void load(RankId rank, const CoordinatorActor& self) {
    rpc::LoadParams params{.plan = to_wire(options_.plan),
                           .rank = rank.value,
                           .isa = options_.isa,
                           .listen_address = options_.listen_address,
                           .spin_between_ops = options_.spin_between_ops,
                           .cache_folder = options_.cache_folder};
    ports_[index(rank)]->load(
        std::move(params), kCallDeadline,
        [self, rank, progress = observer_.on_progress](int64_t done, int64_t total) {
          tell(self, Deployment::LoadProgressed{rank});
          progress(rank, done, total);
        },
        [self, rank](Result<rpc::LoadReport> report) {
          if (!report.ok()) return tell_failed(self, rank, std::move(report).error());
          caf::anon_send(self, std::make_shared<RankLoaded>(RankLoaded{rank, *report}));
        });
  }

  /// In each of its lanes, in a circle.
  void connect(RankId rank, const CoordinatorActor& self) {
    const graph::Plan& plan = options_.plan;
    const auto num_stages = static_cast<int32_t>(plan.stages.size());
    const int32_t own = place_of(plan, rank).stage.value;
    const int32_t before = (own + num_stages - 1) % num_stages;
    const StageIndex after((own + 1) % num_stages);
    const auto link_from = [&](graph::LaneId lane, int32_t stage) {
      return link_of(plan, lane, plan.edges[static_cast<size_t>(stage)].id);
    };
    rpc::ConnectParams params;
    for (const graph::LaneId lane : lanes_of(plan, rank)) {
      const rpc::LoadReport& next = reports_[index(rank_at(plan, lane, after))];
      const EdgeId out = link_from(lane, own);
      const EdgeId in = link_from(lane, before);
      params.links.push_back({.edge = out.value,
                              .address = next.listen_address,
                              .port = next.listen_port,
                              .secret = secrets_[out.value]});
      params.accept.push_back({.edge = in.value, .secret = secrets_[in.value]});
    }
    ports_[index(rank)]->connect(std::move(params), kCallDeadline, [self, rank](Result<Ok> opened) {
      if (!opened.ok()) return tell_failed(self, rank, std::move(opened).error());
      tell(self, Deployment::Connected{rank});
    });
  }

  void watch(RankId rank, const CoordinatorActor& self) {
    ports_[index(rank)]->watch([self, rank](const Result<Ok>& end) {
      if (!end.ok()) tell_failed(self, rank, end.error());
    });
  }

  // A rank that has not loaded may be busy with that for long and has nothing to close.
  void shutdown(RankId rank) {
    const auto& port = ports_[index(rank)];
    if (!port || !loaded_.contains(rank)) return kill(rank);
    port->shutdown(kShutdownDeadline, [port](const Result<Ok>&) {});
  }

  void kill(RankId rank) { caf::anon_send(agent_, std::make_shared<KillRank>(KillRank{rank})); }

  CoordinatorOptions options_;
  AgentActor agent_;
  DeploymentObserver observer_;
  const Clock& clock_;
  Deployment core_;
  std::vector<std::shared_ptr<RankPort>> ports_;
  std::vector<rpc::LoadReport> reports_;
  std::set<RankId> loaded_;
  std::vector<uint64_t> secrets_;  // by link
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
