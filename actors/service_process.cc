#include "actors/service_process.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <thread>

#include "actors/agent.h"
#include "actors/cluster_host.h"
#include "actors/convert.h"
#include "actors/deployment_actors.h"
#include "actors/plan_folder.h"
#include "actors/remote_host.h"
#include "actors/service_folder.h"
#include "actors/store/etcd_store.h"
#include "actors/store/state_store.h"
#include "actors/succession.h"
#include "actors/weights_source.h"
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

/// The deployment's actors behind the coordinator's socket; where coordinators share a store, once
/// this one leads.
class CoordinatorProcess final : public rpc::CoordinatorHandler {
 public:
  CoordinatorProcess(std::string folder, const rpc::ServiceSpec& spec)
      : folder_(std::move(folder)), spec_(spec), server_(*this) {}

  /// The exit status; an error is one that nobody was told.
  Result<int> run(UniqueFd listener) {
    if (spec_.store.address.empty()) {
      ASSIGN_OR_RETURN(auto store, open_sqlite_store(state_file(folder_)));
      RETURN_IF_ERROR(begin(std::move(store), 0));
    } else {
      RETURN_IF_ERROR(stand_by());
    }
    const Status served = server_.run(std::move(listener));
    end_actors();
    succession_.reset();
    RETURN_IF_ERROR(served);
    const std::lock_guard lock(mutex_);
    return failure_ ? kFailed : 0;
  }

  void on_stats(rpc::Reply<std::vector<rpc::RankStats>> reply) override {
    std::vector<std::shared_ptr<RankPort>> ports;
    {
      const std::lock_guard lock(mutex_);
      if (failure_) return reply(*failure_);
      if (!actors_) return reply(make_error(ErrorCode::overloaded, "{}", who_leads_));
      if (takes_over_ && !has_heard_of_all() && waiting_.size() < kWaitingMax)
        return waiting_.push_back(std::move(reply));
      if (has_heard_of_all()) ports = ports_;
    }
    if (ports.empty())
      return reply(make_error(ErrorCode::overloaded, "the stages are not ready yet"));
    gather_stats(ports, kStatsDeadline, std::move(reply));
  }
  void on_trace(uint32_t rank, uint64_t since, rpc::Reply<StepEvents> reply) override {
    std::shared_ptr<RankPort> port;
    {
      const std::lock_guard lock(mutex_);
      if (failure_) return reply(*failure_);
      if (!actors_) return reply(make_error(ErrorCode::overloaded, "{}", who_leads_));
      if (!ports_.empty() && rank >= ports_.size())
        return reply(make_error(ErrorCode::invalid_argument, "there is no rank {}", rank));
      port = ports_.empty() ? nullptr : ports_[rank];
    }
    if (!port) return reply(make_error(ErrorCode::overloaded, "rank {} is not ready yet", rank));
    auto shared = std::make_shared<rpc::Reply<StepEvents>>(std::move(reply));
    port->trace(since, kStatsDeadline, [shared](auto events) { (*shared)(std::move(events)); });
  }
  void on_stop() override {
    is_ending_ = true;
    if (!succession_) return actors_->request_stop();
    succession_->retire([this] { end_actors(); },
                        [this](bool takes_down) {
                          if (!takes_down) return server_.set_stopped();
                          const std::lock_guard lock(mutex_);
                          if (!actors_) return server_.set_stopped();
                          actors_->request_stop();
                        });
  }
  void on_beat(rpc::Reply<Ok> reply) override {
    const std::lock_guard lock(mutex_);
    if (!actors_) return reply(Ok{});  // it stands by
    if (beats_->on_asked(std::move(reply), steady_clock().now())) actors_->request_beat();
  }
  void on_move(uint32_t rank, rpc::OnMoveProgress progress, rpc::Reply<Ok> reply) override {
    const std::lock_guard lock(mutex_);
    if (!actors_) return reply(make_error(ErrorCode::overloaded, "{}", who_leads_));
    actors_->request_move(RankId(rank), std::move(progress), std::move(reply));
  }
  void on_change(rpc::ServiceSpec spec, rpc::OnMoveProgress progress,
                 rpc::Reply<Ok> reply) override {
    const std::lock_guard lock(mutex_);
    if (!actors_) return reply(make_error(ErrorCode::overloaded, "{}", who_leads_));
    Result<graph::Plan> plan = from_wire(spec.plan);
    if (!plan.ok()) return reply(plan.error());
    actors_->request_change(
        {std::move(spec), *std::move(plan), std::move(progress), std::move(reply)});
  }

 private:
  /// Brings the deployment up, or goes on with what the store has of it.
  Status begin(std::shared_ptr<StateStore> store, uint64_t term) {
    ASSIGN_OR_RETURN(std::optional<graph::DeploymentRecord> before, store->read());
    std::shared_ptr<PlanFolder> files;
    if (spec_.certificates.empty()) files = std::make_shared<PlanFolder>(folder_, spec_);
    rpc::ServiceSpec spec = spec_;
    if (before && files) {
      ASSIGN_OR_RETURN(spec, files->find(before->plan_number));
    }
    ASSIGN_OR_RETURN(graph::Plan plan, from_wire(spec.plan));
    const std::vector<int> busy = first_cores(plan);
    if (before) RETURN_IF_ERROR(graph::check(*before, plan));
    const AgentLoss on_loss =
        plan.failover_restarts > 0 ? AgentLoss::is_seen_to : AgentLoss::ends_ranks;
    ASSIGN_OR_RETURN(DeploymentActors::MakeHostIn make_host, host_maker(plan, term, on_loss, busy));
    const bool spans = spans_nodes(plan);
    if (term != 0) shared_ = store;
    const std::lock_guard lock(mutex_);
    takes_over_ = before && before->has_served;
    ASSIGN_OR_RETURN(
        actors_, DeploymentActors::create({.plan = std::move(plan),
                                           .isa = spec_.isa,
                                           .spin_between_ops = spec.spin_between_ops,
                                           .listen_address = spans ? "" : "127.0.0.1",
                                           .cache_folder = spec_.cache_folder,
                                           .term = term,
                                           .store = std::move(store),
                                           .before = std::move(before),
                                           .beats = beats_,
                                           .plan_files = std::move(files),
                                           .weight_sources =
                                               [file = nodes_file(folder_), serve = spec_.weights] {
                                                 return weight_sources(file, serve);
                                               }},
                                          make_host, observer()));
    return ok_status();
  }

  void end_actors() {
    std::unique_ptr<DeploymentActors> actors;
    {
      const std::lock_guard lock(mutex_);
      actors.swap(actors_);
    }
    if (actors) actors->end();
  }

  // ------------------------------------------------------------------- beside other coordinators
  Status stand_by() {
    ASSIGN_OR_RETURN(const auto credentials, rpc::Credentials::load(spec_.certificates));
    wait_for_nodes();
    return Succession::start(succession_, spec_.store, {credentials->identity().name, ::getpid()},
                             {.on_notes =
                                  [this](const LaneNotes& notes) {
                                    server_.set_serving(notes.numerics_id, notes.lanes);
                                    if (!notes.news.empty()) server_.set_lanes(notes.news);
                                  },
                              .on_lead =
                                  [this](const Fence& fence) {
                                    const Status begun = lead(fence);
                                    if (!begun.ok()) fail(begun.error());
                                  },
                              .on_ended = [this](const Error& why) { fail(why); },
                              .on_step_down = [](const std::string& why) { step_down(why); },
                              .on_other =
                                  [this](const Candidate& leader) {
                                    const std::lock_guard lock(mutex_);
                                    who_leads_ = fmt::format(
                                        "coordinator {} leads (process {}); this one stands by",
                                        leader.name, leader.pid);
                                    notice(who_leads_);
                                  },
                              .on_notice = notice});
  }

  /// Ranks of nodes that are not back yet would be taken for gone.
  void wait_for_nodes() const {
    const TimePoint deadline = steady_clock().now() + kNodesMax;
    while (steady_clock().now() < deadline) {
      const auto joined = rpc::read_nodes_file(nodes_file(folder_));
      const auto is_there = [&](const std::string& name) {
        return joined.ok() && std::any_of(joined->begin(), joined->end(),
                                          [&](const auto& node) { return node.name == name; });
      };
      const auto& stages = spec_.plan.stages;
      if (std::all_of(stages.begin(), stages.end(), [&](const rpc::StagePlan& stage) {
            return std::all_of(stage.nodes.begin(), stage.nodes.end(), is_there);
          }))
        return;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }

  Status lead(const Fence& fence) {
    ASSIGN_OR_RETURN(HttpServers servers, servers_of(spec_.store));
    ASSIGN_OR_RETURN(auto client, EtcdClient::create(std::move(servers)));
    return begin(make_etcd_store(std::move(client), fence), static_cast<uint64_t>(fence.term));
  }

  /// At once, whatever else is under way: the ranks live on, and whoever leads has them. What this
  /// process has sent is of its term, and refused.
  [[noreturn]] static void step_down(const std::string& why) {
    notice("this coordinator steps down: " + why);
    ::_exit(kSteppedDown);
  }

  /// The connection to the node agent has ended. If that has died, `serve` ends this process; else
  /// another coordinator connects to it, and takes over what lives.
  void cut_off() const {
    std::this_thread::sleep_for(kAgentNewsMax);
    if (is_ending_) return;
    notice("the coordinator's connection to the node agent broke");
    ::_exit(kCutOff);
  }

  static void notice(const std::string& what) {
    std::fprintf(stderr, "chainpump: %s\n", what.c_str());
  }

  void fail(const Error& error) {
    if (!spec_.store.address.empty() && error.code == ErrorCode::cancelled)
      step_down(error.message);
    is_ending_ = true;
    std::vector<StatsReply> waiting;
    {
      const std::lock_guard lock(mutex_);
      failure_ = error;
      waiting.swap(waiting_);
    }
    for (StatsReply& reply : waiting) reply(error);
    server_.set_failed(error);
  }

  /// For the coordinators that stand by.
  void publish() {
    if (shared_) succession_->tell(notes_);
  }

  // --------------------------------------------------------------------------- the deployment's
  /// On this machine alone, or over the plan's nodes.
  Result<DeploymentActors::MakeHostIn> host_maker(const graph::Plan& plan, uint64_t term,
                                                  AgentLoss on_loss, const std::vector<int>& busy) {
    if (spec_.certificates.empty()) {
      const auto on_address = [book = addresses_](RankId rank, const std::string& socket) {
        book->set(rank, {socket, ""});
      };
      AgentLine line{.address = agent_socket(folder_),
                     .how_lost = "its node agent died",
                     .on_address = on_address};
      if (on_loss == AgentLoss::is_seen_to) line.on_lost = [this] { cut_off(); };
      return DeploymentActors::MakeHostIn([=](caf::actor_system&, RankHost::OnExit on_exit) {
        return make_remote_host(line, std::move(on_exit), on_loss, busy);
      });
    }
    ClusterHostOptions options{.folder = folder_,
                               .plan = plan,
                               .own_node = spec_.node,
                               .term = term,
                               .credentials = {},
                               .busy_cores = busy,
                               .addresses = addresses_};
    ASSIGN_OR_RETURN(options.credentials, rpc::Credentials::load(spec_.certificates));
    return DeploymentActors::MakeHostIn([=](caf::actor_system&, RankHost::OnExit on_exit) {
      return make_cluster_host(options, std::move(on_exit), on_loss);
    });
  }

  using StatsReply = rpc::Reply<std::vector<rpc::RankStats>>;
  static constexpr Duration kStatsDeadline = std::chrono::seconds(5);
  static constexpr size_t kWaitingMax = 256;
  static constexpr Duration kNodesMax = std::chrono::seconds(3);
  static constexpr Duration kAgentNewsMax = std::chrono::milliseconds(300);

  DeploymentObserver observer() {
    return {.on_progress = [this](RankId rank, int64_t done,
                                  int64_t total) { server_.set_progress(rank.value, done, total); },
            .on_serving =
                [this](auto ports, std::string numerics_id, const auto& firsts) {
                  set_ports(std::move(ports));
                  notes_.numerics_id = std::move(numerics_id);
                  for (const LaneFirst& first : firsts) notes_.lanes.push_back(address_of(first));
                  server_.set_serving(notes_.numerics_id, notes_.lanes);
                  publish();
                },
            .on_repaired =
                [this](auto ports, graph::LaneId lane, LaneFirst first) {
                  set_ports(std::move(ports));
                  notes_.lanes[lane.value] = address_of(first);
                  server_.set_serving(notes_.numerics_id, notes_.lanes);
                  publish();
                },
            .on_changed =
                [this](auto ports, const auto& firsts) {
                  set_ports(std::move(ports));
                  notes_.lanes.clear();
                  for (const LaneFirst& first : firsts) notes_.lanes.push_back(address_of(first));
                  server_.set_serving(notes_.numerics_id, notes_.lanes);
                  publish();
                },
            .on_lanes =
                [this](const auto& news) {
                  notes_.news = to_wire(news);
                  server_.set_lanes(notes_.news);
                  publish();
                },
            .on_notice = notice,
            .on_failed = [this](const Error& error) { fail(error); },
            .on_stopped =
                [this] {
                  if (shared_) (void)shared_->clear();  // or whoever comes next finds it ended
                  server_.set_stopped();
                }};
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
  const rpc::ServiceSpec spec_;
  const std::shared_ptr<AddressBook> addresses_ = std::make_shared<AddressBook>();
  const std::shared_ptr<CoordinatorBeats> beats_ = std::make_shared<CoordinatorBeats>();
  LaneNotes notes_;  // in the coordinator's thread only

  rpc::CoordinatorServer server_;
  std::atomic<bool> is_ending_ = false;  // the deployment
  std::mutex mutex_;
  std::vector<std::shared_ptr<RankPort>> ports_;
  std::string who_leads_ = "no coordinator leads yet";  // another
  bool takes_over_ = false;                             // from one that served
  std::vector<StatsReply> waiting_;                     // until it has heard of all ranks
  std::optional<Error> failure_;
  std::shared_ptr<StateStore> shared_;  // with other coordinators; null: no, or another leads
  std::unique_ptr<Succession> succession_;
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
  CoordinatorProcess coordinator(folder, *spec);
  const Result<int> served = coordinator.run(std::move(*listener));
  return served.ok() ? *served : fail("coordinator", served.error());
}

}  // namespace chainpump::actors
