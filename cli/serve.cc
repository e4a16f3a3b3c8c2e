#include "cli/serve.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>

#include "actors/convert.h"
#include "actors/os/process.h"
#include "actors/os/signals.h"
#include "actors/service.h"
#include "base/recent.h"
#include "cli/exit_status.h"
#include "cli/gateway_child.h"
#include "cli/graph_commands.h"
#include "gateway/service_folder.h"

namespace chainpump::cli {
namespace {

constexpr size_t kRestartsMax = 3;
constexpr Duration kRestartsWithin = std::chrono::minutes(1);
constexpr int kFailureNewsMs = 300;
constexpr Duration kEndMax = std::chrono::seconds(10);  // beyond the drain, for the ranks to end

struct Pipe {
  UniqueFd reader;
  UniqueFd writer;
  static Result<Pipe> create() {
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) != 0)
      return make_error(ErrorCode::no_room, "pipe: {}", std::strerror(errno));
    return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
  }
};

class Supervisor {
 public:
  Supervisor(const GatewayOptions& options, const std::vector<std::string>& arguments,
             gateway::ServiceFolder folder, std::string path)
      : options_(options),
        arguments_(arguments),
        folder_(std::move(folder)),
        path_(std::move(path)) {}

  /// `signals` brings a byte for each signal that arrives, its number.
  Result<int> run(int signals) {
    if (!options_.cluster.listen.empty()) {
      ASSIGN_OR_RETURN(const graph::Graph graph, find_graph(options_.deploy.graph));
      ASSIGN_OR_RETURN(cluster_, Cluster::open(options_.cluster, graph, path_));
      ASSIGN_OR_RETURN(const bool came, cluster_->wait_for(graph, signals));
      if (!came) return 0;  // a signal
    }
    ASSIGN_OR_RETURN(Prepared prepared,
                     cluster_ ? cluster_->prepare(options_.deploy) : prepare(options_.deploy));
    ASSIGN_OR_RETURN(graph_text_, graph_text(options_.deploy.graph));
    RETURN_IF_ERROR(start_stages(prepared));
    ASSIGN_OR_RETURN(GatewayChild child, GatewayChild::start(arguments_, folder_.listener()));
    while (true) {
      pollfd ready[4] = {{signals, POLLIN, 0},
                         {child.process().pidfd(), POLLIN, 0},
                         {child.news_fd(), POLLIN, 0},
                         {saw_failure_ ? -1 : stages_->failure_fd(), POLLIN, 0}};
      ::poll(ready, 4, timeout_ms(child));
      if (ends_at_ && steady_clock().now() > *ends_at_) {
        std::fprintf(stderr, "chainpump: the gateway does not end; it is killed\n");
        return 5;
      }
      look_for_hang(child);
      if (ready[0].revents != 0) {
        if (const auto status = on_signal(signals, child)) return *status;
      } else if (ready[3].revents != 0) {
        saw_failure_ = true;  // most often the gateway ends of it
        if (!stages_->has_given_up()) continue;
        std::fprintf(stderr, "chainpump: %s\n", stages_->why_failed().message.c_str());
        return 5;
      } else if (ready[1].revents != 0) {
        ASSIGN_OR_RETURN(const os::ExitStatus end, child.process().wait(kEndMax));
        if (const auto status = after(end)) return *status;
        if (stages_failed(end)) RETURN_IF_ERROR(start_stages(prepared));
        ASSIGN_OR_RETURN(child, GatewayChild::start(arguments_, folder_.listener()));
      } else if (ready[2].revents != 0) {
        if (const auto status = on_news(child)) return *status;
      }
    }
  }

 private:
  Status start_stages(Prepared& prepared) {
    saw_failure_ = false;
    if (stages_) go_on_by_last_plan(prepared);
    stages_.reset();  // before the new ones take its place in the folder
    if (cluster_) RETURN_IF_ERROR(cluster_->share(prepared));
    actors::ServiceOptions options{.program = {},
                                   .isa = prepared.runtime.isa,
                                   .spin_between_ops = prepared.runtime.spin_between_ops,
                                   .cache_folder = prepared.runtime.cache_folder,
                                   .graph = prepared.in_force,
                                   .graph_text = graph_text_};
    if (cluster_) cluster_->add_to(options);
    ASSIGN_OR_RETURN(stages_, actors::Service::start(path_, prepared.plan, options));
    return ok_status();
  }

  /// It may have been changed while it ran.
  void go_on_by_last_plan(Prepared& prepared) {
    Result<transport::rpc::ServiceSpec> last = actors::Service::spec_of(path_);
    if (!last.ok() || last->number == 0) return;
    Result<graph::Plan> plan = actors::from_wire(last->plan);
    if (!plan.ok()) return;
    prepared.plan = *std::move(plan);
    prepared.runtime.spin_between_ops = last->spin_between_ops;
    prepared.in_force = std::move(last->graph);
    graph_text_ = std::move(last->graph_text);
  }

  /// Whether the gateway has ended because they did: a moment later we are told, too.
  bool stages_failed(const os::ExitStatus& gateway) {
    pollfd failed{stages_->failure_fd(), POLLIN, 0};
    if (::poll(&failed, 1, gateway.signalled ? 0 : kFailureNewsMs) != 1) return false;
    std::fprintf(stderr, "chainpump: %s; the stages are started anew\n",
                 stages_->why_failed().message.c_str());
    return true;
  }

  int timeout_ms(const GatewayChild& child) const {
    std::optional<TimePoint> next = child.next_deadline();
    if (ends_at_ && (!next || *ends_at_ < *next)) next = ends_at_;
    if (!next) return -1;
    return static_cast<int>(std::max(0.0, to_ms(*next - steady_clock().now()))) + 1;
  }

  /// Its end is then seen as any.
  void look_for_hang(GatewayChild& child) {
    const std::optional<Duration> silent_for = child.hangs_for(steady_clock().now());
    if (!silent_for) return;
    std::fprintf(stderr,
                 "chainpump: the gateway hangs: it has done nothing for %.2f s; it is killed\n",
                 to_seconds(*silent_for));
    (void)child.process().kill(SIGKILL);
  }

  std::optional<int> on_signal(int signals, GatewayChild& child) {
    unsigned char number = 0;
    if (::read(signals, &number, 1) != 1) return std::nullopt;
    if (ends_at_) return 128 + number;  // with this process its child ends, and the ranks with it
    ends_at_ = steady_clock().now() + std::chrono::seconds(options_.drain_s) + kEndMax;
    if (was_ready_)
      std::fprintf(
          stderr,
          "draining: requests that run may end within %d s; a second signal stops at once\n",
          options_.drain_s);
    (void)child.process().kill(SIGTERM);
    return std::nullopt;
  }

  /// The exit status, unless the gateway is to be started anew.
  std::optional<int> after(const os::ExitStatus& end) {
    // Before it listens to signals, SIGTERM just ends it.
    if (ends_at_ && end.signalled) return end.code == SIGTERM ? 0 : 5;
    if (ends_at_) return end.code;
    if (!was_ready_ && !end.signalled) return end.code;  // it said why
    const size_t num_restarts = restarts_.add(steady_clock().now());
    if (num_restarts > kRestartsMax) {
      std::fprintf(stderr, "chainpump: the gateway ended (%s) after %zu new starts in a minute\n",
                   to_string(end).c_str(), num_restarts - 1);
      return 5;
    }
    std::fprintf(stderr, "chainpump: the gateway ended (%s); it is started anew\n",
                 to_string(end).c_str());
    return std::nullopt;
  }

  std::optional<int> on_news(GatewayChild& child) {
    if (!child.read_news(steady_clock().now())) return std::nullopt;
    was_ready_ = true;
    std::printf("ready: %s; try: chainpump run %s --prompt \"Name three rivers.\"\n",
                folder_.socket_path().c_str(), options_.deploy.graph.c_str());
    if (std::fflush(stdout) == 0) return std::nullopt;
    std::fprintf(stderr, "chainpump: standard output cannot be written\n");
    return 5;
  }

  const GatewayOptions& options_;
  const std::vector<std::string>& arguments_;
  const gateway::ServiceFolder folder_;
  const std::string path_;
  std::string graph_text_;                   // of the file that is in force
  std::unique_ptr<Cluster> cluster_;         // null: this machine alone
  std::unique_ptr<actors::Service> stages_;  // ends before its folder
  bool was_ready_ = false;
  bool saw_failure_ = false;          // of the stages
  std::optional<TimePoint> ends_at_;  // once a signal has come
  Recent restarts_{kRestartsWithin};
};

Result<int> serve(const GatewayOptions& options, const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const Pipe signals, Pipe::create());
  ASSIGN_OR_RETURN(const auto listening,
                   os::TerminationSignals::create([to = signals.writer.get()](int signal) {
                     const auto number = static_cast<unsigned char>(signal);
                     [[maybe_unused]] const ssize_t n = ::write(to, &number, 1);
                   }));
  ASSIGN_OR_RETURN(const graph::Graph graph, find_graph(options.deploy.graph));
  ASSIGN_OR_RETURN(gateway::ServiceFolder folder, gateway::ServiceFolder::create(graph.name));
  Supervisor supervisor(options, arguments, std::move(folder),
                        gateway::service_folder(graph.name).string());
  return supervisor.run(signals.reader.get());
}

}  // namespace

int run_serve(const GatewayOptions& options, const std::vector<std::string>& arguments) {
  ::signal(SIGPIPE, SIG_IGN);
  const Result<int> done = serve(options, arguments);
  if (done.ok()) return *done;
  std::fprintf(stderr, "chainpump: %s\n", done.error().message.c_str());
  return exit_status(done.error().code);
}

}  // namespace chainpump::cli
