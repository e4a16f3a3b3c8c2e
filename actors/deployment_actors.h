// The actors that bring one plan up and take it down: coordinator, node agent, supervisor. Whoever
// embeds them (a runtime, or the coordinator's process) says where ranks come from and watches.
// Any thread, but for end().
#pragma once

#include <functional>
#include <memory>

#include "actors/actor_system.h"
#include "actors/coordinator.h"
#include "actors/node_agent.h"

namespace chainpump::actors {

class DeploymentActors {
 public:
  /// Given the system in which actors may be spawned; called in the agent's thread.
  using MakeHostIn = std::function<Result<std::unique_ptr<RankHost>>(caf::actor_system& system,
                                                                     RankHost::OnExit on_exit)>;

  /// Starts at once. An actor that fails is a deployment that failed and has stopped. no_room if
  /// the system refuses their threads.
  static Result<std::unique_ptr<DeploymentActors>> create(CoordinatorOptions options,
                                                          MakeHostIn make_host,
                                                          DeploymentObserver observer);
  ~DeploymentActors();
  DeploymentActors(const DeploymentActors&) = delete;
  DeploymentActors& operator=(const DeploymentActors&) = delete;

  /// The coordinator answers its beats in its turn; only if it was given any.
  void request_beat();
  /// on_stopped says when every rank has left.
  void request_stop();
  /// `progress` on any thread.
  void request_move(RankId place, rpc::OnMoveProgress progress, rpc::Reply<Ok> reply);
  void request_change(ChangePlan change);
  /// Ends the actors and with the agent its ranks, if any is left, and the thread that calls back.
  /// Not on one of their threads.
  void end();

 private:
  explicit DeploymentActors(ActorSystem actors) : actors_(std::move(actors)) {}

  ActorSystem actors_;
  CoordinatorActor coordinator_;
  AgentActor agent_;
};

/// What every rank has counted, in the order of ranks, or the first error. Answered on a thread of
/// a port.
void gather_stats(const std::vector<std::shared_ptr<RankPort>>& ports, Duration timeout,
                  rpc::Reply<std::vector<rpc::RankStats>> reply);

}  // namespace chainpump::actors
