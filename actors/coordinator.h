// The coordinator: a thin shell round graph::Deployment. It asks the node agent for ranks, tells
// each rank over its port what to load and whom to connect to, and reports what became of the
// deployment. It is not on the token path.
#pragma once

#include <caf/typed_actor.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/rank_host.h"
#include "actors/rank_port.h"
#include "graph/deployment.h"
#include "graph/plan.h"

namespace chainpump::actors {

// ------------------------------------------------------------------ messages, by their direction
/// To the agent.
struct SpawnRank {
  RankId rank;
};
struct KillRank {
  RankId rank;
};
/// From the agent.
struct RankSpawned {
  RankId rank;
  std::shared_ptr<RankPort> port;
};
/// To the coordinator: what happened, for the core.
struct CoordinatorEvent {
  graph::Deployment::Event event;
};
/// To the coordinator: what a rank holds now.
struct RankLoaded {
  RankId rank;
  rpc::LoadReport report;
};
using StartAtom = caf::atom_constant<caf::atom("start")>;

using CoordinatorActor =
    caf::typed_actor<caf::reacts_to<StartAtom>, caf::reacts_to<std::shared_ptr<RankSpawned>>,
                     caf::reacts_to<std::shared_ptr<RankLoaded>>,
                     caf::reacts_to<std::shared_ptr<CoordinatorEvent>>, caf::reacts_to<TickAtom>>;
using AgentActor = caf::typed_actor<caf::reacts_to<std::shared_ptr<SpawnRank>, CoordinatorActor>,
                                    caf::reacts_to<std::shared_ptr<KillRank>>>;

/// What becomes of a deployment, rank by rank in the plan's order; called in the coordinator's
/// thread, each at most once; progress often, in a thread of the rank's port.
struct DeploymentObserver {
  std::function<void(RankId, int64_t bytes_done, int64_t bytes_total)> on_progress;
  std::function<void(std::vector<std::shared_ptr<RankPort>>, std::vector<rpc::LoadReport>)>
      on_serving;
  std::function<void(Error)> on_failed;
  std::function<void()> on_stopped;
};

struct CoordinatorOptions {
  graph::Plan plan;
  std::string isa;
  bool spin_between_ops = true;
  std::string listen_address = "127.0.0.1";
  std::string cache_folder = {};  // as RuntimeOptions
};

CoordinatorActor spawn_coordinator(caf::actor_system& system, CoordinatorOptions options,
                                   AgentActor agent, DeploymentObserver observer,
                                   const Clock& clock);

/// Any thread.
void tell(const CoordinatorActor& coordinator, graph::Deployment::Event event);

}  // namespace chainpump::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::SpawnRank>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::KillRank>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::RankSpawned>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::RankLoaded>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::CoordinatorEvent>)
