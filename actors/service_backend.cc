#include <algorithm>
#include <map>
#include <mutex>
#include <optional>

#include "actors/backend.h"
#include "actors/callback_scope.h"
#include "actors/convert.h"
#include "actors/lanes.h"
#include "actors/os/affinity.h"
#include "actors/service.h"
#include "actors/service_folder.h"
#include "transport/rpc/channel.h"
#include "transport/rpc/coordinator_client.h"
#include "transport/rpc/unix_socket.h"

namespace chainpump::actors {
namespace {

using OnProgress = std::function<void(RankId rank, int64_t bytes_done, int64_t bytes_total)>;

constexpr Duration kHelloDeadline = std::chrono::seconds(10);
constexpr size_t kMostLanes = 64;  // that a graph can ask for

class ServiceBackend final : public Backend {
 public:
  ServiceBackend(std::string folder, graph::Plan plan, uint32_t plan_number,
                 std::shared_ptr<const rpc::Credentials> credentials, OnProgress on_progress,
                 rpc::RpcThread lanes, rpc::RpcThread control, UniqueFd coordinator,
                 std::shared_ptr<Outcome> outcome)
      : folder_(std::move(folder)),
        plan_(std::move(plan)),
        plan_number_(plan_number),
        credentials_(std::move(credentials)),
        outcome_(std::move(outcome)),
        on_progress_(std::move(on_progress)),
        lanes_(std::move(lanes)),
        control_(std::move(control)) {
    watch(std::move(coordinator));
  }

  void stats(Duration timeout, rpc::Reply<std::vector<rpc::RankStats>> reply) override {
    const std::lock_guard lock(mutex_);
    ask({steady_clock().now() + timeout, std::make_shared<rpc::Reply<Stats>>(std::move(reply))});
  }
  void trace(RankId rank, uint64_t since, Duration timeout, rpc::Reply<StepEvents> reply) override {
    const std::lock_guard lock(mutex_);
    if (!client_) return reply(make_error(ErrorCode::cancelled, "the runtime was stopped"));
    auto shared = std::make_shared<rpc::Reply<StepEvents>>(std::move(reply));
    client_->trace(rank.value, since, timeout,
                   [shared](Result<StepEvents> events) { (*shared)(std::move(events)); });
  }
  /// The service goes on without us.
  void request_stop() override { outcome_->set_stopped(); }
  void end() override {
    // Their calls may want the lock.
    std::unique_ptr<rpc::CoordinatorClient> client;
    {
      const std::lock_guard lock(mutex_);
      is_ending_ = true;
      client.swap(client_);
    }
  }

 private:
  using Stats = std::vector<rpc::RankStats>;
  struct Question {
    TimePoint deadline;
    std::shared_ptr<rpc::Reply<Stats>> reply;
  };

  /// First of all, and on the control thread whenever there is another coordinator.
  void watch(UniqueFd coordinator) {
    const std::lock_guard lock(mutex_);  // it may be lost at once
    auto client = std::make_unique<rpc::CoordinatorClient>(control_, std::move(coordinator),
                                                           [this](const Error&) { on_lost(); });
    client->hello(kHelloDeadline, [o = outcome_](const Result<rpc::HelloReply>& reply) {
      if (reply.ok()) return o->health().set_coordinator_away("");
      const bool died = reply.error().code == ErrorCode::disconnected ||
                        reply.error().code == ErrorCode::cancelled;
      if (!died) o->set_failed(reply.error());
    });
    rpc::DeploymentCallbacks callbacks;
    callbacks.on_progress = [this](uint32_t rank, int64_t done, int64_t total) {
      const CallbackScope scope;
      if (on_progress_) on_progress_(RankId(rank), done, total);
    };
    callbacks.on_serving = [this](const std::string& numerics_id,
                                  const std::vector<rpc::LaneAddress>& lanes) {
      serve(numerics_id, lanes);
    };
    callbacks.on_lanes = [o = outcome_](const std::vector<rpc::LaneNews>& news) {
      o->on_lanes(from_wire(news));
    };
    callbacks.on_ended = [o = outcome_](Error why) {
      if (why.code == ErrorCode::cancelled) return o->set_stopped();
      o->set_failed(std::move(why));
    };
    client->watch(std::move(callbacks), [](const Result<Ok>&) {});
    if (is_ending_) return;
    client_.swap(client);
    for (const Question& question : std::exchange(unanswered_, {})) ask(question);
  }

  /// Under the lock.
  void ask(const Question& question) {
    if (!client_)
      return (*question.reply)(make_error(ErrorCode::cancelled, "the runtime was stopped"));
    const Duration left = std::max(Duration(0), question.deadline - steady_clock().now());
    client_->stats(left, [this, question](Result<Stats> stats) {
      if (stats.ok() || stats.error().code != ErrorCode::disconnected)
        return (*question.reply)(std::move(stats));
      on_unanswered(question, stats.error());
    });
  }

  /// A rank has died, as the coordinator says, or that itself has: then the next one is asked.
  void on_unanswered(const Question& question, const Error& why) {
    const std::lock_guard lock(mutex_);
    unanswered_.push_back(question);
    if (!client_) return answer_all(why);
    client_->hello(kHelloDeadline, [this, why](const Result<rpc::HelloReply>& lives) {
      if (!lives.ok()) return;
      const std::lock_guard held(mutex_);
      answer_all(why);
    });
  }

  void answer_all(const Error& why) {  // under the lock
    for (const Question& question : std::exchange(unanswered_, {})) (*question.reply)(why);
  }

  /// The coordinator has died. Another listens at its socket, or will; who is under way in the
  /// lanes notices nothing of it.
  void on_lost() {
    if (outcome_->why_ended()) return;
    outcome_->health().set_coordinator_away("it died, and another one starts");
    Result<UniqueFd> next = rpc::connect_unix(coordinator_socket(folder_));
    if (next.ok()) return watch(*std::move(next));
    const Error why = make_error(ErrorCode::disconnected, "the service's coordinator died");
    outcome_->set_failed(why);
    const std::lock_guard lock(mutex_);
    answer_all(why);
  }

  /// Once it serves, and whenever a lane's first rank is another.
  void serve(const std::string& numerics_id, const std::vector<rpc::LaneAddress>& addresses) {
    look_at_plan();
    if (addresses.size() != static_cast<size_t>(num_lanes(plan_)))
      return outcome_->set_failed(make_error(ErrorCode::internal,
                                             "a service of {} lanes, with a plan of {}",
                                             addresses.size(), num_lanes(plan_)));
    const bool is_first = epochs_.empty();
    std::shared_ptr<Lanes> lanes = outcome_->lanes();
    if (is_first) {
      Result<std::shared_ptr<Lanes>> made = Lanes::create(
          plan_, outcome_,
          {.reconnect = [this](graph::LaneId lane) { reconnect(lane); }, .most_lanes = kMostLanes});
      if (!made.ok()) return outcome_->set_failed(made.error());
      lanes = *std::move(made);
    }
    if (!lanes) return;  // it has ended
    if (lanes->size() != addresses.size()) lanes->set_size(addresses.size());
    {
      const std::lock_guard lock(mutex_);
      addresses_ = addresses;
    }
    for (size_t i = 0; i < addresses.size(); ++i)
      connect(*lanes, graph::LaneId(static_cast<uint8_t>(i)), addresses[i]);
    if (is_first) outcome_->set_serving(lanes, {}, numerics_id);
  }

  /// It may have been changed; then its file says so before this is told.
  void look_at_plan() {
    const Result<rpc::ServiceSpec> spec = Service::spec_of(folder_);
    if (!spec.ok() || spec->number == plan_number_) return;
    Result<graph::Plan> plan = from_wire(spec->plan);
    if (!plan.ok() || num_lanes(*plan) > static_cast<int32_t>(kMostLanes)) return;
    plan_number_ = spec->number;
    outcome_->set_planned(std::make_shared<const Planned>(Planned{*plan, spec->graph_text}));
    const std::lock_guard lock(mutex_);
    plan_ = *std::move(plan);
  }

  /// A rank that has died meanwhile is replaced, and this told again.
  void connect(Lanes& lanes, graph::LaneId lane, const rpc::LaneAddress& address) {
    uint32_t& epoch = epochs_[lane];
    if (address.epoch <= epoch) return;
    epoch = address.epoch;
    const Status open = reopen(lanes, lane, address);
    if (open.ok()) return;
    const ErrorCode code = open.error().code;
    if (code != ErrorCode::not_found && code != ErrorCode::disconnected)
      return outcome_->set_failed(open.error());
    lanes.reconnect_later(lane);
  }

  /// On the lanes' own thread.
  void reconnect(graph::LaneId lane) {
    const std::shared_ptr<Lanes> lanes = outcome_->lanes();
    rpc::LaneAddress address;
    {
      const std::lock_guard lock(mutex_);
      if (is_ending_ || !lanes || lane.value >= addresses_.size()) return;
      address = addresses_[lane.value];
    }
    (void)reopen(*lanes, lane, address);  // else the next time
  }

  Status reopen(Lanes& lanes, graph::LaneId lane, const rpc::LaneAddress& address) {
    ASSIGN_OR_RETURN(rpc::Channel socket, open(address));
    std::shared_ptr<RankPort> first = make_rpc_port(lanes_, std::move(socket));
    first->hello(kHelloDeadline, [o = outcome_](const Result<rpc::HelloReply>& reply) {
      if (!reply.ok() && reply.error().code == ErrorCode::invalid_argument)
        o->set_failed(reply.error());
    });
    lanes.reopen(lane, std::move(first), PlanEpoch(address.epoch));
    return ok_status();
  }

  Result<rpc::Channel> open(const rpc::LaneAddress& address) const {
    return rpc::open_channel(address.socket, credentials_, {rpc::Role::node, address.node});
  }

  const std::string folder_;
  graph::Plan plan_;      // written on the control thread, under the lock
  uint32_t plan_number_;  // on the control thread
  const std::shared_ptr<const rpc::Credentials> credentials_;  // of a cluster
  const std::shared_ptr<Outcome> outcome_;
  const OnProgress on_progress_;
  // Two threads: whoever waits on the lanes' for the reason of a death is told it on the other.
  rpc::RpcThread lanes_;
  rpc::RpcThread control_;
  std::map<graph::LaneId, uint32_t> epochs_;  // of the lanes' connections; on the control thread
  std::mutex mutex_;
  bool is_ending_ = false;
  std::unique_ptr<rpc::CoordinatorClient> client_;  // until end()
  std::vector<rpc::LaneAddress> addresses_;         // of the lanes, as told last
  std::vector<Question> unanswered_;                // as long as it is not known why
};

}  // namespace

Result<std::unique_ptr<Backend>> make_service_backend(const std::string& folder,
                                                      OnProgress on_progress,
                                                      std::shared_ptr<Outcome> outcome) {
  ASSIGN_OR_RETURN(UniqueFd socket, rpc::connect_unix(coordinator_socket(folder)));
  ASSIGN_OR_RETURN(const rpc::ServiceSpec spec, Service::spec_of(folder));
  ASSIGN_OR_RETURN(const graph::Plan plan, from_wire(spec.plan));
  std::shared_ptr<const rpc::Credentials> credentials;
  if (!spec.certificates.empty()) {
    ASSIGN_OR_RETURN(credentials, rpc::Credentials::load(spec.certificates));
  }
  // A token comes when the first stage begins the next step: taking it must not delay that.
  const std::vector<int> busy = first_cores(plan);
  ASSIGN_OR_RETURN(rpc::RpcThread lanes, rpc::RpcThread::create([&] { os::keep_off(busy); }));
  ASSIGN_OR_RETURN(rpc::RpcThread control, rpc::RpcThread::create());
  return Result<std::unique_ptr<Backend>>(std::make_unique<ServiceBackend>(
      folder, plan, spec.number, std::move(credentials), std::move(on_progress), std::move(lanes),
      std::move(control), std::move(socket), std::move(outcome)));
}

}  // namespace chainpump::actors
