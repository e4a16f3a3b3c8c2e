#include "actors/deployment_actors.h"

#include <caf/scoped_actor.hpp>
#include <mutex>

#include "actors/supervisor.h"

namespace chainpump::actors {
namespace {

constexpr Duration kEndMax = std::chrono::seconds(10);

}  // namespace

Result<std::unique_ptr<DeploymentActors>> DeploymentActors::create(CoordinatorOptions options,
                                                                   MakeHostIn make_host,
                                                                   DeploymentObserver observer) {
  ASSIGN_OR_RETURN(ActorSystem actors, ActorSystem::create());
  std::unique_ptr<DeploymentActors> made(new DeploymentActors(std::move(actors)));
  caf::actor_system& system = made->actors_.system();
  Result<AgentActor> agent = spawn_node_agent(
      system, [&system, make_host = std::move(make_host)](RankHost::OnExit on_exit) {
        return make_host(system, std::move(on_exit));
      });
  if (!agent.ok()) return std::move(agent).error();
  made->agent_ = *std::move(agent);
  made->coordinator_ =
      spawn_coordinator(system, std::move(options), made->agent_, observer, steady_clock());
  spawn_supervisor(system,
                   {{"coordinator", caf::actor_cast<caf::actor>(made->coordinator_)},
                    {"node agent", caf::actor_cast<caf::actor>(made->agent_)}},
                   [failed = observer.on_failed, stopped = observer.on_stopped](Error error) {
                     failed(std::move(error));
                     stopped();
                   });
  return made;
}

DeploymentActors::~DeploymentActors() = default;

void DeploymentActors::request_stop() { tell(coordinator_, graph::Deployment::StopRequested{}); }

void DeploymentActors::request_beat() { caf::anon_send(coordinator_, BeatAtom::value); }

void DeploymentActors::request_move(RankId place, rpc::OnMoveProgress progress,
                                    rpc::Reply<Ok> reply) {
  caf::anon_send(coordinator_, std::make_shared<MoveRank>(
                                   MoveRank{place, std::move(progress), std::move(reply)}));
}

void DeploymentActors::request_change(ChangePlan change) {
  caf::anon_send(coordinator_, std::make_shared<ChangePlan>(std::move(change)));
}

void DeploymentActors::end() {
  caf::scoped_actor self{actors_.system()};
  self->monitor(agent_);
  caf::anon_send_exit(coordinator_, caf::exit_reason::user_shutdown);
  caf::anon_send_exit(agent_, caf::exit_reason::user_shutdown);
  self->receive([](const caf::down_msg&) {}, caf::after(kEndMax) >> [] {});
}

void gather_stats(const std::vector<std::shared_ptr<RankPort>>& ports, Duration timeout,
                  rpc::Reply<std::vector<rpc::RankStats>> reply) {
  struct Gathered {
    std::mutex mutex;
    size_t num_missing;
    std::vector<rpc::RankStats> stats;
    rpc::Reply<std::vector<rpc::RankStats>> reply;
  };
  const auto gathered = std::make_shared<Gathered>();
  gathered->num_missing = ports.size();
  gathered->stats.resize(ports.size());
  gathered->reply = std::move(reply);
  for (size_t i = 0; i < ports.size(); ++i)
    ports[i]->stats(timeout, [gathered, i](Result<rpc::RankStats> stats) {
      const std::lock_guard lock(gathered->mutex);
      if (gathered->reply.answered()) return;
      if (!stats.ok()) return gathered->reply(std::move(stats).error());
      gathered->stats[i] = std::move(*stats);
      if (--gathered->num_missing == 0) gathered->reply(std::move(gathered->stats));
    });
}

}  // namespace chainpump::actors
