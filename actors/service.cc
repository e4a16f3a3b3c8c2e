#include "actors/service.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <future>
#include <map>
#include <mutex>
#include <optional>

#include "actors/convert.h"
#include "actors/os/process.h"
#include "actors/rank.h"
#include "actors/service_beats.h"
#include "actors/service_folder.h"
#include "base/recent.h"
#include "transport/rpc/agent_client.h"
#include "transport/rpc/coordinator_client.h"
#include "transport/rpc/service_file.h"
#include "transport/rpc/unix_socket.h"

namespace chainpump::actors {
namespace {

namespace rpc = transport::rpc;

constexpr const char* kCoordinator = "coordinator";  // the verb, too
constexpr const char* kAgent = "node agent";
constexpr Duration kBeatDeadline = std::chrono::seconds(10);  // only bounds a lost answer
constexpr Duration kStopMax = std::chrono::seconds(5);
// A deployment fails at once when a process of ours dies, whose own end says more.
constexpr Duration kDeathNewsMax = std::chrono::milliseconds(100);

/// Removes what a service leaves in its folder.
void sweep(const std::string& folder) {
  std::error_code ignored;
  const std::filesystem::directory_iterator entries(folder, ignored);
  for (const auto& entry : entries) {
    const std::string name = entry.path().filename().string();
    const bool is_ours = name == "agent.sock" || name == "coordinator.sock" || name == "plan" ||
                         name.starts_with("plan.") || name.starts_with("plan-") ||
                         name.starts_with("state.db") ||
                         (name.starts_with("rank-") && name.ends_with(".sock"));
    if (is_ours) std::filesystem::remove(entry.path(), ignored);
  }
}

/// A question to whoever serves `socket`, over a connection of its own.
template <typename Client>
Result<ServiceBeats::Ask> asking(rpc::RpcThread& thread, const std::string& socket) {
  ASSIGN_OR_RETURN(UniqueFd connected, rpc::connect_unix(socket));
  const auto client = std::make_shared<Client>(thread, std::move(connected), [](const Error&) {});
  client->hello(Duration::max(), [](const Result<rpc::HelloReply>&) {});
  return ServiceBeats::Ask(
      [client](rpc::Callback<Ok> answer) { client->beat(kBeatDeadline, std::move(answer)); });
}

/// Why the service failed, once it has. Any thread.
class Failure {
 public:
  Failure() : event_(::eventfd(0, EFD_CLOEXEC)) {}

  /// A death of one of our processes, or what the coordinator says of the deployment.
  void set_death(Error error) { set(death_, std::move(error)); }
  void set_report(Error error) { set(report_, std::move(error)); }

  int fd() const { return event_.get(); }
  bool has_report() const {
    const std::lock_guard lock(mutex_);
    return report_.has_value();
  }
  Error get() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kDeathNewsMax, [&] { return death_.has_value(); });
    CHECK(death_ || report_);
    return death_ ? *death_ : *report_;
  }

 private:
  void set(std::optional<Error>& which, Error error) {
    const std::lock_guard lock(mutex_);
    if (!which) which = std::move(error);
    changed_.notify_all();
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof one);
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Error> death_;
  std::optional<Error> report_;
  UniqueFd event_;
};

}  // namespace

struct Service::Impl {
  struct Child {
    std::string name;
    os::Process process;
    std::string how_hung = {};  // it did, and was killed for it
  };

  std::string folder;
  std::string program;
  std::vector<std::string> rank_flags;  // that the agent passes on
  Failure failure;
  size_t restarts_max = 0;  // of coordinator and node agent, within the window
  std::optional<rpc::RpcThread> thread;

  std::mutex mutex;  // what is below, since the watcher has begun
  std::map<pid_t, Child> children;
  // They stay, so that who connects waits for the next one that listens there.
  UniqueFd agent_listener;
  UniqueFd coordinator_listener;
  std::optional<rpc::CoordinatorClient> client;
  std::optional<Recent> restarts;
  bool is_ending = false;
  bool has_given_up = false;
  std::unique_ptr<os::ProcessWatcher> watcher;
  std::unique_ptr<ServiceBeats> beats;

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      is_ending = true;  // from here on no other client
    }
    beats.reset();  // before those it asks end
    if (client) stop_deployment();
    client.reset();
    watcher.reset();   // before the deaths that are ours
    children.clear();  // with the agent its ranks
    sweep(folder);
  }

  Status start(const rpc::ServiceSpec& spec) {
    sweep(folder);
    RETURN_IF_ERROR(rpc::write_service_file(plan_file(folder), spec));
    restarts_max = static_cast<size_t>(std::max(0, spec.plan.failover_restarts));
    restarts.emplace(Duration(spec.plan.failover_window_ns));
    ASSIGN_OR_RETURN(rpc::RpcThread started, rpc::RpcThread::create());
    thread.emplace(std::move(started));
    ASSIGN_OR_RETURN(watcher, os::ProcessWatcher::create([this](pid_t pid) { on_death(pid); }));
    ASSIGN_OR_RETURN(beats, ServiceBeats::create([this](pid_t pid, Duration silent_for) {
                       on_hung(pid, silent_for);
                     }));
    // They listen before anybody is there to connect: nobody has to wait for another's start.
    const std::lock_guard lock(mutex);
    ASSIGN_OR_RETURN(agent_listener, rpc::listen_unix(agent_socket(folder)));
    ASSIGN_OR_RETURN(coordinator_listener, rpc::listen_unix(coordinator_socket(folder)));
    if (spec.store.address.empty()) RETURN_IF_ERROR(start_agent());
    return start_coordinator();
  }

  // The rest under the lock.
  Status start_agent() {
    std::vector<std::string> argv = {"chainpump", "agent", "--dir", folder};
    argv.insert(argv.end(), rank_flags.begin(), rank_flags.end());
    ASSIGN_OR_RETURN(const pid_t pid, spawn(kAgent, std::move(argv), agent_listener));
    ASSIGN_OR_RETURN(auto ask, asking<rpc::AgentClient>(*thread, agent_socket(folder)));
    beats->watch(pid, std::move(ask));
    return ok_status();
  }

  Status start_coordinator() {
    ASSIGN_OR_RETURN(const pid_t pid, spawn(kCoordinator,
                                            {"chainpump", kCoordinator, "--dir", folder, "--plan",
                                             plan_file(folder)},
                                            coordinator_listener));
    const std::string socket = coordinator_socket(folder);
    ASSIGN_OR_RETURN(auto ask, asking<rpc::CoordinatorClient>(*thread, socket));
    beats->watch(pid, std::move(ask));
    return watch();
  }

  Result<pid_t> spawn(const std::string& name, std::vector<std::string> argv,
                      const UniqueFd& listener) {
    os::SpawnOptions options;
    options.program = program;
    options.argv = std::move(argv);
    options.descriptors = {{listener.get(), kServiceListenFd}};
    ASSIGN_OR_RETURN(os::Process process, os::spawn(options));
    const pid_t pid = process.pid();
    const auto [entry, is_new] = children.emplace(pid, Child{name, std::move(process)});
    CHECK(is_new);
    RETURN_IF_ERROR(watcher->watch(entry->second.process));
    return pid;
  }

  /// Its end is then seen as any.
  void on_hung(pid_t pid, Duration silent_for) {
    const std::lock_guard lock(mutex);
    const auto found = children.find(pid);
    if (found == children.end() || is_ending || failure.has_report()) return;  // it ends
    found->second.how_hung =
        fmt::format("it had not answered for {:.2f} s, and was killed", to_seconds(silent_for));
    (void)found->second.process.kill(SIGKILL);
  }

  void on_death(pid_t pid) {
    const std::lock_guard lock(mutex);
    const auto found = children.find(pid);
    if (found == children.end()) return;  // ended by us
    const Result<os::ExitStatus> status = found->second.process.wait(std::chrono::seconds(1));
    // A coordinator that ends by itself has said why.
    if (status.ok() && !status->signalled && failure.has_report()) return;
    const std::string name = found->second.name;
    const std::string& how_hung = found->second.how_hung;
    const Error death =
        how_hung.empty() ? make_error(ErrorCode::disconnected, "the {} died: {}", name,
                                      status.ok() ? os::to_string(*status) : status.error().message)
                         : make_error(ErrorCode::disconnected, "the {} hung: {}", name, how_hung);
    const bool stepped_down = status.ok() && !status->signalled && status->code == kSteppedDown;
    const bool is_replaced =
        status.ok() && (status->signalled || stepped_down || status->code == kCutOff);
    if (!is_replaced || is_ending || failure.has_report()) return failure.set_death(death);
    end(found);
    const Status restarted = stepped_down ? start_coordinator() : restart(name, death);
    if (restarted.ok()) return;
    failure.set_death(restarted.error());
    agent_listener.reset();  // nobody waits there in vain
    coordinator_listener.reset();
  }

  /// Another one goes on with what this one had; or why not. With a node agent its ranks have
  /// ended, and the coordinator that knew it: the next one reads what there was, and has it built
  /// again.
  Status restart(const std::string& name, const Error& death) {
    take_limits();
    const size_t num_restarts = restarts->add(steady_clock().now());
    if (num_restarts > restarts_max) {
      if (restarts_max == 0) return death;
      has_given_up = true;
      return make_error(
          death.code, "{}, after {} new starts within {:.3g} s (failover.restarts: {})",
          death.message, num_restarts - 1, to_seconds(restarts->window()), restarts_max);
    }
    std::fprintf(stderr, "chainpump: %s; it is started anew\n", death.message.c_str());
    if (name == kAgent) {
      end_coordinator();
      RETURN_IF_ERROR(start_agent());
    }
    return start_coordinator();
  }

  /// They may have been changed meanwhile.
  void take_limits() {
    const Result<rpc::ServiceSpec> spec = rpc::read_service_file(plan_file(folder));
    if (!spec.ok()) return;
    restarts_max = static_cast<size_t>(std::max(0, spec->plan.failover_restarts));
    restarts.emplace(Duration(spec->plan.failover_window_ns), restarts->times());
  }

  void end_coordinator() {
    const auto found = std::find_if(children.begin(), children.end(), [](const auto& entry) {
      return entry.second.name == kCoordinator;
    });
    if (found != children.end()) end(found);
  }

  void end(std::map<pid_t, Child>::iterator child) {
    beats->forget(child->first);
    children.erase(child);  // which ends it
  }

  Status watch() {
    ASSIGN_OR_RETURN(UniqueFd socket, rpc::connect_unix(coordinator_socket(folder)));
    client.emplace(*thread, std::move(socket), [](const Error&) {});  // its death is seen otherwise
    // How long it may take is another's business.
    client->hello(Duration::max(), [this](const Result<rpc::HelloReply>& reply) {
      if (!reply.ok() && reply.error().code != ErrorCode::disconnected &&
          reply.error().code != ErrorCode::cancelled)
        failure.set_report(reply.error());
    });
    rpc::DeploymentCallbacks callbacks;
    callbacks.on_ended = [this](Error why) { failure.set_report(std::move(why)); };
    client->watch(std::move(callbacks), [](const Result<Ok>&) {});
    return ok_status();
  }

  void stop_deployment() {
    auto answered = std::make_shared<std::promise<void>>();
    auto stopped = answered->get_future();
    client->stop(kStopMax, [answered](const Result<Ok>&) { answered->set_value(); });
    stopped.wait();  // the call has a deadline
  }
};

Service::Service(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Service::~Service() = default;

Result<std::unique_ptr<Service>> Service::start(const std::string& folder, const graph::Plan& plan,
                                                const ServiceOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->folder = folder;
  impl->program = options.program.empty() ? os::self_exe() : options.program;
  impl->rank_flags = to_flags({.node = options.node, .data_address = options.data_address});
  RETURN_IF_ERROR(impl->start({.plan = to_wire(plan),
                               .isa = options.isa,
                               .spin_between_ops = options.spin_between_ops,
                               .cache_folder = options.cache_folder,
                               .certificates = options.certificates,
                               .node = options.node,
                               .store = options.store,
                               .graph = options.graph,
                               .graph_text = options.graph_text,
                               .number = 0,
                               .weights = options.weights}));
  return std::unique_ptr<Service>(new Service(std::move(impl)));
}

Result<rpc::ServiceSpec> Service::spec_of(const std::string& folder) {
  return rpc::read_service_file(plan_file(folder));
}

Result<graph::Plan> Service::plan_of(const std::string& folder) {
  ASSIGN_OR_RETURN(const rpc::ServiceSpec spec, spec_of(folder));
  return from_wire(spec.plan);
}

int Service::failure_fd() const { return impl_->failure.fd(); }
Error Service::why_failed() { return impl_->failure.get(); }
bool Service::has_given_up() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->has_given_up;
}

}  // namespace chainpump::actors
