#include "actors/node_agent.h"

#include <caf/typed_event_based_actor.hpp>

#include "actors/actor_system.h"

namespace chainpump::actors {
namespace {

AgentActor::behavior_type agent_behavior(AgentActor::pointer self, MakeHost make_host) {
  struct State {
    std::unique_ptr<RankHost> host;
  };
  const auto state = std::make_shared<State>();
  // A rank that never was has failed, and then ended.
  const auto failed = [](const CoordinatorActor& coordinator, RankId rank, Error error) {
    tell(coordinator, graph::Deployment::Failed{rank, std::move(error)});
    tell(coordinator, graph::Deployment::Exited{rank, "never started"});
  };
  return {
      [=](std::shared_ptr<SpawnRank>& command, const CoordinatorActor& coordinator) {
        if (!state->host) {
          auto host = make_host([coordinator](RankId rank, std::string how) {
            tell(coordinator, graph::Deployment::Exited{rank, std::move(how)});
          });
          if (!host.ok()) return failed(coordinator, command->rank, std::move(host).error());
          state->host = std::move(host).value();
        }
        Result<std::shared_ptr<RankPort>> port = state->host->spawn(command->rank);
        if (!port.ok()) return failed(coordinator, command->rank, std::move(port).error());
        self->send(coordinator, std::make_shared<RankSpawned>(RankSpawned{command->rank, *port}));
      },
      [=](std::shared_ptr<KillRank>& command) {
        if (state->host) state->host->kill(command->rank);
      },
  };
}

}  // namespace

Result<AgentActor> spawn_node_agent(caf::actor_system& system, MakeHost make_host) {
  return spawn_detached(system, "the thread of the node agent", agent_behavior,
                        std::move(make_host));
}

}  // namespace chainpump::actors
