// The node agent: the actor that starts and ends this machine's ranks and tells the coordinator of
// every end. A detached actor, so that the thread which spawns lives as long as the agent.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "actors/coordinator.h"

namespace chainpump::actors {

class RankHost;

/// Makes the host in the agent's own thread; an error ends the deployment.
using MakeHost = std::function<Result<std::unique_ptr<RankHost>>(RankHost::OnExit on_exit)>;

/// no_room if the system refuses the thread.
Result<AgentActor> spawn_node_agent(caf::actor_system& system, MakeHost make_host);

}  // namespace chainpump::actors
