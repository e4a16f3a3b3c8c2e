// The coordinator: a thin shell round graph::Deployment. It asks the node agent for processes,
// tells each over its port what to load, whom to connect to, and in a repair to fence and to
// resume, and reports what became of the deployment. It is not on the token path.
//
// With a store it writes down what the core says before it does anything, and given what an earlier
// coordinator wrote it goes on from there: it asks the agent who runs, and then each of those.
#pragma once

#include <caf/typed_actor.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/coordinator_beats.h"
#include "actors/rank_host.h"
#include "actors/rank_port.h"
#include "actors/stage_actor.h"
#include "actors/store/state_store.h"
#include "graph/deployment.h"
#include "graph/health.h"
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
/// Of the agent to itself: a process and its run, whose node was away.
using RetryAtom = caf::atom_constant<caf::atom("retry")>;
/// Of the agent to itself: RankHost::look().
using LookAtom = caf::atom_constant<caf::atom("look")>;
using FindAtom = caf::atom_constant<caf::atom("find")>;
/// From the agent: who runs already, for an earlier coordinator.
struct RanksFound {
  Result<std::vector<RankHost::Found>> ranks;
};
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
/// To the coordinator: how far a rank's computing thread has come, and what came and went over its
/// links; nothing: the call failed.
struct BeatHeard {
  ProcessRun of;
  TimePoint asked;
  std::optional<rpc::BeatReply> beat;
};
/// To the coordinator: give the place of a rank to another process.
struct MoveRank {
  RankId place;
  rpc::OnMoveProgress progress;  // any thread
  rpc::Reply<Ok> reply;
};
/// To the coordinator: go on by another plan. The plan, as `spec` says it.
struct ChangePlan {
  rpc::ServiceSpec spec;
  graph::Plan plan;
  rpc::OnMoveProgress progress;  // any thread
  rpc::Reply<Ok> reply;
};
using StartAtom = caf::atom_constant<caf::atom("start")>;
/// To the coordinator: somebody asks whether it is at work.
using BeatAtom = caf::atom_constant<caf::atom("beat")>;

using CoordinatorActor = caf::typed_actor<
    caf::reacts_to<StartAtom>, caf::reacts_to<BeatAtom>,
    caf::reacts_to<std::shared_ptr<RanksFound>>, caf::reacts_to<std::shared_ptr<RankSpawned>>,
    caf::reacts_to<std::shared_ptr<RankLoaded>>, caf::reacts_to<std::shared_ptr<RankFenced>>,
    caf::reacts_to<std::shared_ptr<WatchEnded>>, caf::reacts_to<std::shared_ptr<BeatHeard>>,
    caf::reacts_to<std::shared_ptr<CoordinatorEvent>>, caf::reacts_to<std::shared_ptr<MoveRank>>,
    caf::reacts_to<std::shared_ptr<ChangePlan>>, caf::reacts_to<TickAtom>>;
using AgentActor =
    caf::typed_actor<caf::reacts_to<FindAtom, CoordinatorActor>,
                     caf::reacts_to<std::shared_ptr<SpawnRank>, CoordinatorActor>,
                     caf::reacts_to<RetryAtom, uint32_t, uint32_t>, caf::reacts_to<LookAtom>,
                     caf::reacts_to<std::shared_ptr<KillRank>>>;

/// A lane's first rank, as its clients know it.
struct LaneFirst {
  RankId process;   // its number, by which the agent names its socket
  PlanEpoch since;  // the epoch since when it is that, 1 from the start: with another than before
                    // the lane's clients attach anew
};

/// What becomes of a deployment; ports are those of the plan's ranks, in its order, null where a
/// new coordinator has not heard of one yet. Called in the coordinator's thread, each at most once,
/// but for repairs; progress often, in a thread of the rank's port, until it serves.
struct DeploymentObserver {
  std::function<void(RankId, int64_t bytes_done, int64_t bytes_total)> on_progress;
  /// Or it has, under an earlier coordinator.
  std::function<void(std::vector<std::shared_ptr<RankPort>>, std::string numerics_id,
                     std::vector<LaneFirst> by_lane)>
      on_serving;
  /// A lane serves again.
  std::function<void(std::vector<std::shared_ptr<RankPort>>, graph::LaneId lane, LaneFirst first)>
      on_repaired;
  /// It goes on by another plan, whose lanes all serve; its ranks are these, if they are others.
  std::function<void(std::vector<std::shared_ptr<RankPort>>, std::vector<LaneFirst> by_lane)>
      on_changed = {};
  /// What has become of each lane, in order, once it serves and whenever one is away or serves
  /// again; may be empty.
  std::function<void(std::vector<graph::LaneNews>)> on_lanes = {};
  /// What goes wrong and is mended, in a sentence for whoever looks after it; may be empty.
  std::function<void(const std::string&)> on_notice = {};
  std::function<void(Error)> on_failed;
  std::function<void()> on_stopped;
};

/// Where the plan of a service stands, for who comes after this coordinator, and its other
/// processes. One thread, the coordinator's.
class PlanFiles {
 public:
  virtual ~PlanFiles() = default;
  /// To be found by its number, should that be the one in force. no_room.
  virtual Status prepare(const rpc::ServiceSpec& spec) = 0;
  /// That of this number is in force now, and prepared.
  virtual Status take(uint32_t number) = 0;
};

struct CoordinatorOptions {
  graph::Plan plan;
  std::string isa;
  bool spin_between_ops = true;
  std::string listen_address = "127.0.0.1";  // empty: each rank's, on its node's trusted network
  std::string cache_folder = {};             // as RuntimeOptions
  uint64_t term = 0;                         // of this coordinator, where several follow each other
  bool finds_hangs = true;  // not where ranks are threads, of which none can be ended alone
  std::shared_ptr<StateStore> store = {};  // null: nothing outlives the coordinator
  /// What an earlier coordinator of this plan wrote there; checked.
  std::optional<graph::DeploymentRecord> before = {};
  std::shared_ptr<CoordinatorBeats> beats = {};  // null: nobody asks
  std::shared_ptr<PlanFiles> plan_files = {};    // null: its plan cannot be changed
  /// Who has the model file now, for ranks whose nodes lack it; empty: nobody does.
  std::function<std::vector<rpc::WeightSource>()> weight_sources = {};
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
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::RanksFound>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::RankSpawned>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::RankLoaded>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::RankFenced>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::WatchEnded>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::BeatHeard>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::CoordinatorEvent>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::MoveRank>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::ChangePlan>)
