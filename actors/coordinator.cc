#include "actors/coordinator.h"

#include <caf/typed_event_based_actor.hpp>

#include "actors/coordinator_shell.h"

namespace chainpump::actors {
namespace {

using graph::Deployment;

CoordinatorActor::behavior_type coordinator_behavior(CoordinatorActor::pointer self,
                                                     std::shared_ptr<CoordinatorShell> coordinator,
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
      [=](BeatAtom) { coordinator->answer_beats(); },
      [=](std::shared_ptr<RanksFound>& found) {
        coordinator->on_found(*found, self);
        settle();
      },
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
      [=](std::shared_ptr<BeatHeard>& beat) {
        coordinator->on_beat(*beat, self);
        settle();
      },
      [=](std::shared_ptr<CoordinatorEvent>& event) {
        coordinator->on_event(*event, self);
        settle();
      },
      [=](std::shared_ptr<MoveRank>& move) {
        coordinator->on_move(*move, self);
        settle();
      },
      [=](std::shared_ptr<ChangePlan>& change) {
        coordinator->on_change(*change, self);
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
  auto state = std::make_shared<CoordinatorShell>(std::move(options), std::move(agent),
                                                  std::move(observer), clock);
  const CoordinatorActor actor = system.spawn(coordinator_behavior, std::move(state), &clock);
  caf::anon_send(actor, StartAtom::value);
  return actor;
}

}  // namespace chainpump::actors
