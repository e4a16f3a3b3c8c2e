// The coordinator: a thin shell round graph::Deployment. It asks the node agent for processes,
// tells each over its port what to load, whom to connect to, and in a repair to fence and to
// resume, and reports what became of the deployment. It is not on the token path.
#pragma once

#include <caf/typed_actor.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/rank_host.h"
#include "actors/rank_port.h"
#include "actors/stage_actor.h"
#include "graph/deployment.h"
#include "graph/plan.h"

namespace chainpump::actors {

// ------------------------------------------------------------------ messages, by their direction
/// A process, and how many have had its number: what concerns an earlier one is void.
struct ProcessRun {
  ProcessId process;
  uint32_t run = 0;
  bool operator==(const ProcessRun&) const = default;
};
/// To the agent.
struct SpawnRank {
  ProcessRun of;
};
struct KillRank {
  ProcessId process;
};
/// From the agent.
struct RankSpawned {
  ProcessRun of;
  std::shared_ptr<RankPort> port;
};
/// To the coordinator: what happened, for the core.
struct CoordinatorEvent {
  graph::Deployment::Event event;
  std::optional<ProcessRun> of = {};  // void if another has its number by now
};
/// To the coordinator: what a rank has loaded.
struct RankLoaded {
  ProcessRun of;
  rpc::LoadReport report;
};
/// To the coordinator: what a rank holds of a lane.
struct RankFenced {
  ProcessRun of;
  graph::LaneId lane;
  PlanEpoch epoch;
  rpc::StageHoldings holdings;
};
/// To the coordinator: a rank has answered its watch.
struct WatchEnded {
  ProcessRun of;
  Error error;
};
/// To the coordinator: how far a rank's computing thread has come; nothing: the call failed.
struct BeatHeard {
  ProcessRun of;
  std::optional<uint64_t> count;
};
using StartAtom = caf::atom_constant<caf::atom("start")>;

using CoordinatorActor = caf::typed_actor<
    caf::reacts_to<StartAtom>, caf::reacts_to<std::shared_ptr<RankSpawned>>,
    caf::reacts_to<std::shared_ptr<RankLoaded>>, caf::reacts_to<std::shared_ptr<RankFenced>>,
    caf::reacts_to<std::shared_ptr<WatchEnded>>, caf::reacts_to<std::shared_ptr<BeatHeard>>,
    caf::reacts_to<std::shared_ptr<CoordinatorEvent>>, caf::reacts_to<TickAtom>>;
using AgentActor = caf::typed_actor<caf::reacts_to<std::shared_ptr<SpawnRank>, CoordinatorActor>,
                                    caf::reacts_to<std::shared_ptr<KillRank>>>;

/// What becomes of a deployment; ports and reports are those of the plan's ranks, in its order.
/// Called in the coordinator's thread, each at most once, but for repairs; progress often, in a
/// thread of the rank's port, until it serves.
struct DeploymentObserver {
  std::function<void(RankId, int64_t bytes_done, int64_t bytes_total)> on_progress;
  std::function<void(std::vector<std::shared_ptr<RankPort>>, std::vector<rpc::LoadReport>)>
      on_serving;
  /// A lane serves again. `first_since` is the epoch since when this process is its first rank, 1
  /// from the start: with another than before its clients attach anew. `first_process` is the
  /// number of that process, by which the agent names its socket.
  std::function<void(std::vector<std::shared_ptr<RankPort>>, graph::LaneId lane,
                     PlanEpoch first_since, RankId first_process)>
      on_repaired;
  /// What goes wrong and is mended, in a sentence for whoever looks after it; may be empty.
  std::function<void(const std::string&)> on_notice = {};
  std::function<void(Error)> on_failed;
  std::function<void()> on_stopped;
};

struct CoordinatorOptions {
  graph::Plan plan;
  std::string isa;
  bool spin_between_ops = true;
  std::string listen_address = "127.0.0.1";
  std::string cache_folder = {};  // as RuntimeOptions
  bool finds_hangs = true;        // not where ranks are threads, of which none can be ended alone
};

CoordinatorActor spawn_coordinator(caf::actor_system& system, CoordinatorOptions options,
                                   AgentActor agent, DeploymentObserver observer,
                                   const Clock& clock);

/// Any thread.
void tell(const CoordinatorActor& coordinator, graph::Deployment::Event event,
          std::optional<ProcessRun> of = std::nullopt);

}  // namespace chainpump::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::SpawnRank>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::KillRank>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::RankSpawned>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::RankLoaded>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::RankFenced>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::WatchEnded>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::BeatHeard>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::CoordinatorEvent>)
