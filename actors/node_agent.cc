#include "actors/node_agent.h"

#include <caf/typed_event_based_actor.hpp>
#include <map>
#include <mutex>

#include "actors/actor_system.h"

namespace chainpump::actors {
namespace {

constexpr std::chrono::milliseconds kTryAgainAfter{500};

/// Who has each number now; the host tells of ends on threads of its own.
class Runs {
 public:
  void begin(const ProcessRun& of) {
    const std::lock_guard lock(mutex_);
    runs_[of.process] = of.run;
  }
  ProcessRun of(ProcessId process) {
    const std::lock_guard lock(mutex_);
    return {process, runs_[process]};
  }

 private:
  std::mutex mutex_;
  std::map<ProcessId, uint32_t> runs_;
};

AgentActor::behavior_type agent_behavior(AgentActor::pointer self, MakeHost make_host) {
  using graph::Deployment;
  struct State {
    std::unique_ptr<RankHost> host;
    std::map<ProcessId, std::pair<uint32_t, CoordinatorActor>>
        delayed;  // runs that are tried again
  };
  const auto state = std::make_shared<State>();
  const auto runs = std::make_shared<Runs>();
  const auto failed = [](const CoordinatorActor& coordinator, const ProcessRun& of, Error error) {
    tell(coordinator, Deployment::NotStarted{of.process, std::move(error)}, of);
  };
  const auto have_host = [=](const CoordinatorActor& coordinator) -> Status {
    if (state->host) return ok_status();
    ASSIGN_OR_RETURN(
        state->host, make_host([coordinator, runs](RankId number, std::string how) {
          const ProcessId process(number.value);
          tell(coordinator, Deployment::Exited{process, std::move(how)}, runs->of(process));
        }));
    self->send(self, LookAtom::value);  // after what it was made for
    return ok_status();
  };
  const auto find = [=](const CoordinatorActor& coordinator) -> RanksFound {
    const Status there = have_host(coordinator);
    if (!there.ok()) return {there.error()};
    return {state->host->find()};
  };
  return {
      [=](FindAtom, const CoordinatorActor& coordinator) {
        self->send(coordinator, std::make_shared<RanksFound>(find(coordinator)));
      },
      [=](std::shared_ptr<SpawnRank>& command, const CoordinatorActor& coordinator) {
        const ProcessRun of = command->of;
        runs->begin(of);
        const Status there = have_host(coordinator);
        if (!there.ok()) return failed(coordinator, of, there.error());
        state->delayed.erase(of.process);
        Result<std::shared_ptr<RankPort>> port = state->host->spawn(RankId(of.process.value));
        if (!port.ok() && port.error().code == ErrorCode::overloaded) {
          tell(coordinator, Deployment::Delayed{of.process, std::move(port).error()}, of);
          state->delayed[of.process] = {of.run, coordinator};
          return self->delayed_send(self, kTryAgainAfter, RetryAtom::value, of.process.value,
                                    of.run);
        }
        if (!port.ok()) return failed(coordinator, of, std::move(port).error());
        self->send(coordinator, std::make_shared<RankSpawned>(RankSpawned{of, *port}));
      },
      [=](RetryAtom, uint32_t process, uint32_t run) {
        const auto found = state->delayed.find(ProcessId(process));
        if (found == state->delayed.end() || found->second.first != run) return;
        self->send(self, std::make_shared<SpawnRank>(SpawnRank{{ProcessId(process), run}}),
                   found->second.second);
      },
      [=](LookAtom) {
        if (const std::optional<Duration> again = state->host->look())
          self->delayed_send(self, *again, LookAtom::value);
      },
      [=](std::shared_ptr<KillRank>& command) {
        const auto found = state->delayed.find(command->process);
        if (found != state->delayed.end()) {
          const auto [run, coordinator] = found->second;
          state->delayed.erase(found);
          return tell(coordinator, Deployment::Exited{command->process, "it was never started"},
                      ProcessRun{command->process, run});
        }
        if (state->host) state->host->kill(RankId(command->process.value));
      },
  };
}

}  // namespace

Result<AgentActor> spawn_node_agent(caf::actor_system& system, MakeHost make_host) {
  return spawn_detached(system, "the thread of the node agent", agent_behavior,
                        std::move(make_host));
}

}  // namespace chainpump::actors
