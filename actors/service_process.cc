#include "actors/service_process.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstdio>
#include <thread>

#include "actors/agent.h"
#include "actors/cluster_host.h"
#include "actors/convert.h"
#include "actors/deployment_actors.h"
#include "actors/remote_host.h"
#include "actors/service_folder.h"
#include "actors/store/state_store.h"
#include "transport/rpc/coordinator_server.h"
#include "transport/rpc/service_file.h"

namespace chainpump::actors {
namespace {

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

/// The deployment's actors behind the coordinator's socket.
class CoordinatorProcess final : public rpc::CoordinatorHandler {
 public:
  CoordinatorProcess(std::string folder) : folder_(std::move(folder)), server_(*this) {}

  /// The exit status; an error is one that nobody was told.
  Result<int> run(UniqueFd listener, const rpc::ServiceSpec& spec) {
    ASSIGN_OR_RETURN(graph::Plan plan, from_wire(spec.plan));
    const std::vector<int> busy = first_cores(plan);
    ASSIGN_OR_RETURN(std::shared_ptr<StateStore> store, open_sqlite_store(state_file(folder_)));
    ASSIGN_OR_RETURN(std::optional<graph::DeploymentRecord> before, store->read());
    if (before) RETURN_IF_ERROR(graph::check(*before, plan));
    takes_over_ = before && before->has_served;
    const AgentLoss on_loss =
        plan.failover_restarts > 0 ? AgentLoss::is_seen_to : AgentLoss::ends_ranks;
    ASSIGN_OR_RETURN(DeploymentActors::MakeHostIn make_host, host_maker(plan, spec, on_loss, busy));
    const bool spans = spans_nodes(plan);
    ASSIGN_OR_RETURN(actors_, DeploymentActors::create({.plan = std::move(plan),
                                                        .isa = spec.isa,
                                                        .spin_between_ops = spec.spin_between_ops,
                                                        .listen_address = spans ? "" : "127.0.0.1",
                                                        .cache_folder = spec.cache_folder,
                                                        .store = std::move(store),
                                                        .before = std::move(before),
                                                        .beats = beats_},
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
      if (takes_over_ && !has_heard_of_all() && waiting_.size() < kWaitingMax)
        return waiting_.push_back(std::move(reply));
      if (has_heard_of_all()) ports = ports_;
    }
    if (ports.empty())
      return reply(make_error(ErrorCode::overloaded, "the stages are not ready yet"));
    gather_stats(ports, kStatsDeadline, std::move(reply));
  }
  void on_stop() override { actors_->request_stop(); }
  void on_beat(rpc::Reply<Ok> reply) override {
    if (beats_->on_asked(std::move(reply), steady_clock().now())) actors_->request_beat();
  }
  void on_move(uint32_t rank, rpc::OnMoveProgress progress, rpc::Reply<Ok> reply) override {
    actors_->request_move(RankId(rank), std::move(progress), std::move(reply));
  }

 private:
  /// On this machine alone, or over the plan's nodes.
  Result<DeploymentActors::MakeHostIn> host_maker(const graph::Plan& plan,
                                                  const rpc::ServiceSpec& spec, AgentLoss on_loss,
                                                  const std::vector<int>& busy) {
    if (spec.node.empty()) {
      const auto on_address = [book = addresses_](RankId rank, const std::string& socket) {
        book->set(rank, {socket, ""});
      };
      const AgentLine line{.address = agent_socket(folder_),
                           .how_lost = "its node agent died",
                           .on_address = on_address};
      return DeploymentActors::MakeHostIn([=](caf::actor_system&, RankHost::OnExit on_exit) {
        return make_remote_host(line, std::move(on_exit), on_loss, busy);
      });
    }
    ClusterHostOptions options{.folder = folder_,
                               .plan = plan,
                               .own_node = spec.node,
                               .credentials = {},
                               .busy_cores = busy,
                               .addresses = addresses_};
    ASSIGN_OR_RETURN(options.credentials, rpc::Credentials::load(spec.certificates));
    return DeploymentActors::MakeHostIn([=](caf::actor_system&, RankHost::OnExit on_exit) {
      return make_cluster_host(options, std::move(on_exit), on_loss);
    });
  }

  using StatsReply = rpc::Reply<std::vector<rpc::RankStats>>;
  static constexpr Duration kStatsDeadline = std::chrono::seconds(5);
  static constexpr size_t kWaitingMax = 256;

  DeploymentObserver observer() {
    return {
        .on_progress = [this](RankId rank, int64_t done,
                              int64_t total) { server_.set_progress(rank.value, done, total); },
        .on_serving =
            [this](auto ports, std::string numerics_id, const auto& firsts) {
              set_ports(std::move(ports));
              numerics_id_ = std::move(numerics_id);
              for (const LaneFirst& first : firsts) lanes_.push_back(address_of(first));
              server_.set_serving(numerics_id_, lanes_);
            },
        .on_repaired =
            [this](auto ports, graph::LaneId lane, LaneFirst first) {
              set_ports(std::move(ports));
              lanes_[lane.value] = address_of(first);
              server_.set_serving(numerics_id_, lanes_);
            },
        .on_lanes = [this](const auto& news) { server_.set_lanes(to_wire(news)); },
        .on_notice =
            [](const std::string& what) { std::fprintf(stderr, "chainpump: %s\n", what.c_str()); },
        .on_failed =
            [this](Error error) {
              std::vector<StatsReply> waiting;
              {
                const std::lock_guard lock(mutex_);
                failure_ = error;
                waiting.swap(waiting_);
              }
              for (StatsReply& reply : waiting) reply(error);
              server_.set_failed(std::move(error));
            },
        .on_stopped = [this] { server_.set_stopped(); }};
  }

  rpc::LaneAddress address_of(const LaneFirst& first) const {
    const AddressBook::Entry at = addresses_->of(first.process);
    return {.socket = at.socket, .epoch = first.since.value, .node = at.node};
  }

  void set_ports(std::vector<std::shared_ptr<RankPort>> ports) {
    std::vector<StatsReply> answerable;
    {
      const std::lock_guard lock(mutex_);
      ports_.swap(ports);  // the others' end is not for those who hold the lock
      if (has_heard_of_all()) answerable.swap(waiting_);
    }
    for (StatsReply& reply : answerable) on_stats(std::move(reply));
  }

  bool has_heard_of_all() const {  // under the lock
    return !ports_.empty() && std::find(ports_.begin(), ports_.end(), nullptr) == ports_.end();
  }

  const std::string folder_;
  const std::shared_ptr<AddressBook> addresses_ = std::make_shared<AddressBook>();
  const std::shared_ptr<CoordinatorBeats> beats_ = std::make_shared<CoordinatorBeats>();
  // In the coordinator's thread only:
  std::string numerics_id_;
  std::vector<rpc::LaneAddress> lanes_;

  rpc::CoordinatorServer server_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<RankPort>> ports_;
  bool takes_over_ = false;          // from one that served
  std::vector<StatsReply> waiting_;  // until it has heard of all ranks
  std::optional<Error> failure_;
  std::unique_ptr<DeploymentActors> actors_;  // ends first: its threads use all the rest
};

}  // namespace

int run_agent(const std::string& folder, const RankTerms& terms) {
  Result<UniqueFd> listener = inherited_listener();
  if (!listener.ok()) return fail("agent", listener.error());
  Agent agent({.folder = folder, .address = {}, .terms = terms});
  const Status served = agent.run(std::move(*listener), {});
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
