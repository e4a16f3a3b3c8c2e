#include "cli/gateway_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <optional>

#include "actors/os/affinity.h"
#include "actors/os/signals.h"
#include "cli/exit_status.h"
#include "cli/graph_commands.h"
#include "cli/progress.h"
#include "gateway/rpc/server.h"
#include "gateway/service_folder.h"

namespace chainpump::cli {
namespace {

constexpr Duration kLoadSilenceMax = std::chrono::minutes(10);  // without any progress
constexpr Duration kCancelMax = std::chrono::seconds(2);        // for what was cancelled in the end

/// What the gateway does about ten times a second, besides serving.
class Caretaker {
 public:
  Caretaker(actors::Runtime& runtime, gateway::Core& core, const LoadProgress& progress,
            UniqueFd news, const std::atomic<int>& signal, Duration drain_max)
      : runtime_(runtime),
        core_(core),
        progress_(progress),
        news_(std::move(news)),
        signal_(signal),
        drain_max_(drain_max) {}

  /// False when it is time to end.
  bool tick() {
    const bool goes_on = look_round();
    if (goes_on) say(kBeatNews);
    if (!goes_on) news_.reset();
    return goes_on;
  }
  const Status& outcome() const { return outcome_; }

 private:
  void say(char news) { [[maybe_unused]] const ssize_t n = ::write(news_.get(), &news, 1); }

  bool look_round() {
    const TimePoint now = steady_clock().now();
    if (!look_after_stages(now)) return false;
    if (signal_ == 0) return true;
    if (!draining_since_) {
      draining_since_ = now;
      if (core_.phase() == gateway::Phase::loading) return false;
      core_.set_draining();
    }
    const Duration drained = now - *draining_since_;
    if (drained >= drain_max_) core_.cancel_all();
    return !core_.idle() && drained < drain_max_ + kCancelMax;
  }

  bool look_after_stages(TimePoint now) {
    Status stages = runtime_.wait_ready(Duration(0));
    if (stages.ok()) {
      if (!std::exchange(serving_, true)) {
        end_progress();
        core_.set_ready("every stage is ready");
      }
      // Nobody is told so before a token has come through.
      if (!ready_ && core_.readiness().ready) {
        ready_ = true;
        say(kReadyNews);
      }
      return true;
    }
    if (stages.error().code == ErrorCode::deadline_exceeded &&
        now - progress_.last() < kLoadSilenceMax) {
      if (const std::string how_far = progress_.text(); !how_far.empty())
        core_.set_loading(how_far);
      return true;
    }
    end_progress();
    core_.set_failed(stages.error());
    outcome_ = std::move(stages);
    return false;
  }

  actors::Runtime& runtime_;
  gateway::Core& core_;
  const LoadProgress& progress_;
  UniqueFd news_;
  const std::atomic<int>& signal_;
  const Duration drain_max_;
  bool serving_ = false;
  bool ready_ = false;
  std::optional<TimePoint> draining_since_;
  Status outcome_ = ok_status();
};

/// As many connections as there are descriptors for, beside what the stages need.
int32_t connections_max(size_t num_stages) {
  rlimit limit{};
  CHECK_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  constexpr rlim_t kEnough = 1024;
  if (limit.rlim_cur < kEnough) {
    limit.rlim_cur = std::min(kEnough, limit.rlim_max);
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  const auto ours = static_cast<int64_t>(64 + 8 * num_stages);
  const auto left = static_cast<int64_t>(std::min(limit.rlim_cur, kEnough)) - ours;
  return static_cast<int32_t>(std::clamp<int64_t>(left, 1, 256));
}

Status serve(const GatewayOptions& options, const std::atomic<int>& signal) {
  UniqueFd listener(kListenerFd), news(kNewsFd);
  struct stat found {};
  if (::fstat(listener.get(), &found) != 0 || !S_ISSOCK(found.st_mode) ||
      ::fcntl(news.get(), F_SETFD, FD_CLOEXEC) != 0 ||
      ::fcntl(listener.get(), F_SETFD, FD_CLOEXEC) != 0)
    return make_error(ErrorCode::invalid_argument,
                      "the gateway is started by `chainpump serve`, with a socket");
  ASSIGN_OR_RETURN(const graph::Graph graph, find_graph(options.deploy.graph));
  ASSIGN_OR_RETURN(Deployment deployment,
                   attach(options.deploy, gateway::service_folder(graph.name).string()));
  // A token comes when the first stage begins the next step: delivering it must not delay that.
  os::keep_off(first_cores(deployment.info.plan));
  gateway::RuntimeEngine engine(*deployment.runtime);
  gateway::Core core(engine, std::move(deployment.encoder), std::move(deployment.info), {},
                     steady_clock());
  Caretaker caretaker(*deployment.runtime, core, *deployment.progress, std::move(news), signal,
                      std::chrono::seconds(options.drain_s));
  gateway::rpc::Server server(
      std::move(listener), core,
      {.uid = ::geteuid(),
       .connections_max = connections_max(core.deployment()->plan.stages.size()),
       .on_tick = [&caretaker] { return caretaker.tick(); }});
  const Status served = server.run();
  deployment.runtime->stop();  // before what its callbacks belong to
  RETURN_IF_ERROR(served);
  return caretaker.outcome();
}

}  // namespace

int run_gateway(const GatewayOptions& options) {
  ::signal(SIGPIPE, SIG_IGN);
  std::atomic<int> signal{0};
  const auto listening = os::TerminationSignals::create([&signal](int number) { signal = number; });
  const Status done = listening.ok() ? serve(options, signal) : Status(listening.error());
  if (done.ok()) return 0;
  std::fprintf(stderr, "chainpump: %s\n", done.error().message.c_str());
  return exit_status(done.error().code);
}

}  // namespace chainpump::cli
