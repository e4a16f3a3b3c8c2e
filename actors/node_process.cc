#include "actors/node_process.h"

#include <sys/socket.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <future>
#include <mutex>
#include <optional>
#include <thread>

#include "actors/agent.h"
#include "actors/os/signals.h"
#include "actors/weights_source.h"
#include "base/thread.h"
#include "transport/rpc/channel.h"
#include "transport/rpc/cluster_client.h"
#include "transport/rpc/cluster_server.h"
#include "transport/socket_address.h"

namespace chainpump::actors {
namespace {

namespace rpc = transport::rpc;

constexpr Duration kJoinDeadline = std::chrono::seconds(5);
constexpr Duration kTryAgainAfter = std::chrono::milliseconds(500);
constexpr Duration kRanksOutlive = std::chrono::seconds(30);  // the loss of the cluster

/// Our address on the way to `to`; nothing is sent.
Result<std::string> address_towards(const std::string& to) {
  ASSIGN_OR_RETURN(const transport::SocketAddress there, transport::parse_socket_address(to));
  const UniqueFd socket(::socket(there.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid() || ::connect(socket.get(), there.get(), there.length) != 0)
    return make_error(ErrorCode::disconnected, "{}: there is no way there from this machine", to);
  const std::string own = rpc::own_address(socket);
  return own.substr(0, own.rfind(':'));
}

/// Whether anybody is there whose ranks run here. Any thread.
class Ties {
 public:
  explicit Ties(Agent& agent) : agent_(agent) {}
  void joined() {
    const std::lock_guard lock(mutex_);
    ++num_joined_;
    lost_at_.reset();
  }
  void lost() {
    const std::lock_guard lock(mutex_);
    if (--num_joined_ == 0) lost_at_ = steady_clock().now();
  }
  /// Nobody has asked for them for long, and nobody will.
  void end_orphans() {
    const std::lock_guard lock(mutex_);
    if (!lost_at_ || steady_clock().now() - *lost_at_ < kRanksOutlive) return;
    lost_at_.reset();
    if (const int running = agent_.num_running(); running > 0)
      std::fprintf(stderr, "chainpump: %d ranks are ended: their cluster does not come back\n",
                   running);
    agent_.end_all();
  }

 private:
  Agent& agent_;
  std::mutex mutex_;
  int num_joined_ = 0;
  std::optional<TimePoint> lost_at_;
};

/// Keeps this machine joined to one `serve`, on a thread of its own.
class Joiner {
 public:
  Joiner(std::string to, std::shared_ptr<const rpc::Credentials> credentials, rpc::NodeInfo info,
         Agent& agent, Ties& ties, rpc::RpcThread rpc)
      : to_(std::move(to)),
        credentials_(std::move(credentials)),
        info_(std::move(info)),
        agent_(agent),
        ties_(ties),
        rpc_(std::move(rpc)) {}
  ~Joiner() {
    stop();
    if (thread_.joinable()) thread_.join();
  }
  Joiner(const Joiner&) = delete;
  Joiner& operator=(const Joiner&) = delete;

  Status start() {
    ASSIGN_OR_RETURN(thread_, start_thread("the thread that joins", [this] { run(); }));
    return ok_status();
  }
  /// Waits until it has ended, after stop(); why the cluster refuses this machine, if it does.
  std::optional<Error> end() {
    if (thread_.joinable()) thread_.join();
    return refusal_;
  }
  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }

 private:
  /// Until stop(), or the cluster refuses this machine.
  void run() {
    while (!is_stopped()) {
      const Status joined = join();
      if (joined.ok()) {
        std::fprintf(stderr, "chainpump: joined %s as node '%s'; the agent is at %s\n", to_.c_str(),
                     info_.name.c_str(), info_.agent.c_str());
        told_ = "";
        ties_.joined();
        wait_lost();
        ties_.lost();
        client_.reset();
        if (!is_stopped())
          std::fprintf(stderr, "chainpump: the cluster at %s was lost; trying to join again\n",
                       to_.c_str());
        continue;
      }
      client_.reset();
      if (joined.error().code == ErrorCode::invalid_argument) {
        refusal_ = joined.error();
        return agent_.stop();
      }
      tell_once(joined.error().message);
      ties_.end_orphans();
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, kTryAgainAfter, [&] { return stopped_; });
    }
  }
  bool is_stopped() {
    const std::lock_guard lock(mutex_);
    return stopped_;
  }

  Status join() {
    ASSIGN_OR_RETURN(const std::string address, rpc::resolve(to_));
    ASSIGN_OR_RETURN(rpc::Channel channel,
                     rpc::open_channel(address, credentials_, {rpc::Role::coordinator, ""}));
    {
      const std::lock_guard lock(mutex_);
      lost_ = false;
    }
    client_.emplace(rpc_, std::move(channel), [this](const Error&) {
      const std::lock_guard lock(mutex_);
      lost_ = true;
      changed_.notify_all();
    });
    RETURN_IF_ERROR(answered<rpc::HelloReply>(
        [&](auto done) { client_->hello(kJoinDeadline, std::move(done)); }));
    return answered<Ok>([&](auto done) { client_->join(info_, kJoinDeadline, std::move(done)); });
  }

  template <typename T, typename Start>
  static Status answered(Start start) {
    auto promise = std::make_shared<std::promise<Result<T>>>();
    auto future = promise->get_future();
    start([promise](Result<T> result) { promise->set_value(std::move(result)); });
    const Result<T> result = future.get();  // the call has a deadline
    return result.ok() ? ok_status() : Status(result.error());
  }

  void wait_lost() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return lost_ || stopped_; });  // the system notices what is lost
  }

  void tell_once(const std::string& what) {
    if (told_ == what) return;
    told_ = what;
    std::fprintf(stderr, "chainpump: %s; trying again\n", what.c_str());
  }

  const std::string to_;
  const std::shared_ptr<const rpc::Credentials> credentials_;
  const rpc::NodeInfo info_;
  Agent& agent_;
  Ties& ties_;
  rpc::RpcThread rpc_;
  std::optional<rpc::ClusterClient> client_;
  std::optional<Error> refusal_;
  std::string told_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool lost_ = false;
  bool stopped_ = false;
  std::thread thread_;
};

/// Where links of this node's ranks may be: the trusted network, if one was named.
Result<std::string> data_address(const NodeOptions& options, const std::string& listen) {
  if (!options.data_network.empty()) return transport::address_on(options.data_network);
  return rpc::is_loopback_address(listen + ":0") ? std::string("127.0.0.1") : std::string();
}

}  // namespace

Status run_node(const NodeOptions& options) {
  ASSIGN_OR_RETURN(const auto credentials, rpc::Credentials::load(options.certificates));
  if (credentials->identity().role != rpc::Role::node)
    return make_error(ErrorCode::invalid_argument, "{}: the certificate is of {}, not of a node",
                      options.certificates, to_string(credentials->identity()));
  std::string listen = options.listen;
  if (listen.empty()) {
    ASSIGN_OR_RETURN(const std::string address, rpc::resolve(options.join.front()));
    ASSIGN_OR_RETURN(listen, address_towards(address));
  }
  ASSIGN_OR_RETURN(UniqueFd listener, rpc::listen_network(listen + ":0"));
  rpc::NodeInfo info{.name = credentials->identity().name,
                     .labels = options.labels,
                     .agent = rpc::own_address(listener),
                     .data_address = {},
                     .cores = {options.machine.cores.begin(), options.machine.cores.end()},
                     .memory_bytes = options.machine.memory_bytes,
                     .read_bytes_per_s = options.machine.read_bytes_per_s,
                     .int8_ops_per_s = options.machine.int8_ops_per_s,
                     .f32_ops_per_s = options.machine.f32_ops_per_s,
                     .bf16_ops_per_s = options.machine.bf16_ops_per_s};
  ASSIGN_OR_RETURN(info.data_address, data_address(options, listen));
  ASSIGN_OR_RETURN(UniqueFd weights_listener, rpc::listen_network(listen + ":0"));
  info.weights = rpc::own_address(weights_listener);
  RETURN_IF_ERROR(rpc::check(info, info.name));
  Agent agent({.folder = {},
               .address = listen,
               .terms = {.node = info.name,
                         .data_address = info.data_address,
                         .certificates = options.certificates,
                         .models = options.models,
                         .cache_folder = options.cache_folder,
                         .weights = options.weights}});
  // Before any thread, none of which may be given a signal.
  ASSIGN_OR_RETURN(const auto listening,
                   os::TerminationSignals::create([&](int) { agent.stop(); }));
  ASSIGN_OR_RETURN(const auto weights,
                   WeightsSource::start(std::move(weights_listener), credentials,
                                        {.models = options.models, .store = options.weights}));
  Ties ties(agent);
  std::vector<std::unique_ptr<Joiner>> joiners;
  for (const std::string& to : options.join) {
    ASSIGN_OR_RETURN(rpc::RpcThread rpc, rpc::RpcThread::create());
    joiners.push_back(std::make_unique<Joiner>(to, credentials, info, agent, ties, std::move(rpc)));
    RETURN_IF_ERROR(joiners.back()->start());
  }
  const Status served = agent.run(
      std::move(listener), {credentials, rpc::Role::coordinator, [](const std::string& what) {
                              std::fprintf(stderr, "chainpump: %s\n", what.c_str());
                            }});
  for (const auto& joiner : joiners) joiner->stop();
  for (const auto& joiner : joiners)
    if (auto refusal = joiner->end()) return *std::move(refusal);
  return served;
}

}  // namespace chainpump::actors
