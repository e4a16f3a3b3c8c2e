#include "actors/service_process.h"

#include <sys/socket.h>

#include <cstdio>
#include <map>
#include <thread>

#include "actors/convert.h"
#include "actors/deployment_actors.h"
#include "actors/rank_processes.h"
#include "actors/remote_host.h"
#include "actors/service_folder.h"
#include "transport/rpc/agent_server.h"
#include "transport/rpc/coordinator_server.h"
#include "transport/rpc/service_file.h"
#include "transport/rpc/unix_socket.h"

namespace chainpump::actors {
namespace {

constexpr uint32_t kRanksMax = 1 << 16;
constexpr int kFailed = 5;

int fail(const char* who, const Error& error) {
  std::fprintf(stderr, "chainpump: %s: %s\n", who, error.message.c_str());
  return kFailed;
}

Result<UniqueFd> inherited_listener() {
  int listens = 0;
  socklen_t size = sizeof listens;
  if (::getsockopt(kServiceListenFd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 ||
      listens != 1)
    return make_error(ErrorCode::invalid_argument,
                      "no listening socket; a service starts its processes itself");
  return UniqueFd(kServiceListenFd);
}

/// Calls come on the main thread: the ranks that it starts live as long as the process may.
class Agent final : public rpc::AgentHandler {
 public:
  explicit Agent(std::string folder) : folder_(std::move(folder)), server_(*this) {}

  Status run(UniqueFd listener) {
    ASSIGN_OR_RETURN(ranks_,
                     RankProcesses::create(os::self_exe(), [this](RankId rank, std::string how) {
                       server_.tell_exit(rank.value, std::move(how));
                     }));
    return server_.run(std::move(listener));
  }

  Result<std::string> on_spawn(uint32_t number) override {
    if (number >= kRanksMax)
      return make_error(ErrorCode::invalid_argument, "there is no rank {}", number);
    const RankId rank(number);
    if (ranks_->has(rank))
      return make_error(ErrorCode::invalid_argument, "rank {} runs already", number);
    const std::string path = rank_socket(folder_, rank);
    ASSIGN_OR_RETURN(const UniqueFd listener, rpc::listen_unix(path));
    ASSIGN_OR_RETURN(lifelines_[rank], ranks_->spawn(rank, listener));
    return path;
  }
  void on_kill(uint32_t rank) override { ranks_->kill(RankId(rank)); }

 private:
  const std::string folder_;
  rpc::AgentServer server_;
  std::map<RankId, UniqueFd> lifelines_;
  std::unique_ptr<RankProcesses> ranks_;  // ends first: its thread uses the server
};

/// The deployment's actors behind the coordinator's socket.
class CoordinatorProcess final : public rpc::CoordinatorHandler {
 public:
  CoordinatorProcess(std::string folder) : folder_(std::move(folder)), server_(*this) {}

  /// The exit status; an error is one that nobody was told.
  Result<int> run(UniqueFd listener, const rpc::ServiceSpec& spec) {
    ASSIGN_OR_RETURN(graph::Plan plan, from_wire(spec.plan));
    const std::vector<int> busy = first_cores(plan);
    plan_ = plan;
    const auto make_host = [this, busy](caf::actor_system&, RankHost::OnExit on_exit) {
      return make_remote_host(folder_, std::move(on_exit), busy);
    };
    ASSIGN_OR_RETURN(actors_, DeploymentActors::create({.plan = std::move(plan),
                                                        .isa = spec.isa,
                                                        .spin_between_ops = spec.spin_between_ops,
                                                        .cache_folder = spec.cache_folder},
                                                       make_host, observer()));
    const Status served = server_.run(std::move(listener));
    actors_->end();
    RETURN_IF_ERROR(served);
    const std::lock_guard lock(mutex_);
    return failure_ ? kFailed : 0;
  }

  void on_stats(rpc::Reply<std::vector<rpc::RankStats>> reply) override {
    std::vector<std::shared_ptr<RankPort>> ports;
    {
      const std::lock_guard lock(mutex_);
      if (failure_) return reply(*failure_);
      ports = ports_;
    }
    if (ports.empty())
      return reply(make_error(ErrorCode::overloaded, "the stages are not ready yet"));
    gather_stats(ports, kStatsDeadline, std::move(reply));
  }
  void on_stop() override { actors_->request_stop(); }

 private:
  static constexpr Duration kStatsDeadline = std::chrono::seconds(5);

  DeploymentObserver observer() {
    return {
        .on_progress = [this](RankId rank, int64_t done,
                              int64_t total) { server_.set_progress(rank.value, done, total); },
        .on_serving =
            [this](auto ports, const auto& reports) {
              set_ports(std::move(ports));
              numerics_id_ = reports.front().numerics_id;
              for (int32_t i = 0; i < num_lanes(plan_); ++i) {
                const graph::LaneId lane(static_cast<uint8_t>(i));
                lanes_.push_back(
                    {.socket = rank_socket(folder_, rank_at(plan_, lane, StageIndex(0))),
                     .epoch = 1});
              }
              server_.set_serving(numerics_id_, lanes_);
            },
        .on_repaired =
            [this](auto ports, graph::LaneId lane, PlanEpoch first_since, RankId first_process) {
              set_ports(std::move(ports));
              lanes_[lane.value] = {.socket = rank_socket(folder_, first_process),
                                    .epoch = first_since.value};
              server_.set_serving(numerics_id_, lanes_);
            },
        .on_notice =
            [](const std::string& what) { std::fprintf(stderr, "chainpump: %s\n", what.c_str()); },
        .on_failed =
            [this](Error error) {
              {
                const std::lock_guard lock(mutex_);
                failure_ = error;
              }
              server_.set_failed(std::move(error));
            },
        .on_stopped = [this] { server_.set_stopped(); }};
  }

  void set_ports(std::vector<std::shared_ptr<RankPort>> ports) {
    const std::lock_guard lock(mutex_);
    ports_.swap(ports);  // the others' end is not for those who hold the lock
  }

  const std::string folder_;
  graph::Plan plan_;  // before the actors
  // In the coordinator's thread only:
  std::string numerics_id_;
  std::vector<rpc::LaneAddress> lanes_;

  rpc::CoordinatorServer server_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<RankPort>> ports_;
  std::optional<Error> failure_;
  std::unique_ptr<DeploymentActors> actors_;  // ends first: its threads use all the rest
};

}  // namespace

int run_agent(const std::string& folder) {
  Result<UniqueFd> listener = inherited_listener();
  if (!listener.ok()) return fail("agent", listener.error());
  Agent agent(folder);
  const Status served = agent.run(std::move(*listener));
  return served.ok() ? 0 : fail("agent", served.error());
}

int run_coordinator(const std::string& folder, const std::string& plan_path) {
  Result<UniqueFd> listener = inherited_listener();
  if (!listener.ok()) return fail("coordinator", listener.error());
  const Result<rpc::ServiceSpec> spec = rpc::read_service_file(plan_path);
  if (!spec.ok()) return fail("coordinator", spec.error());
  CoordinatorProcess coordinator(folder);
  const Result<int> served = coordinator.run(std::move(*listener), *spec);
  return served.ok() ? *served : fail("coordinator", served.error());
}

}  // namespace chainpump::actors
