#include "actors/rank.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <mutex>
#include <optional>

#include "actors/actor_system.h"
#include "actors/convert.h"
#include "actors/os/affinity.h"
#include "actors/stage_actor.h"
#include "transport/rpc/rank_server.h"

namespace chainpump::actors {
namespace {

/// All that want to know how far loading has come; any thread.
class LoadWatchers {
 public:
  void add(rpc::ProgressReport report) {
    const std::lock_guard lock(mutex_);
    reports_.push_back(std::move(report));
  }
  void tell(int64_t done, int64_t total) {
    const std::lock_guard lock(mutex_);
    for (const rpc::ProgressReport& report : reports_) report(done, total);
  }
  /// It has ended.
  void forget() {
    const std::lock_guard lock(mutex_);
    reports_.clear();
  }

 private:
  std::mutex mutex_;
  std::vector<rpc::ProgressReport> reports_;  // of each coordinator there was meanwhile
};

class Handler final : public rpc::RankHandler {
 public:
  explicit Handler(StageHandle stage) : stage_(std::move(stage)) {}

  void on_load(rpc::LoadParams params, rpc::ProgressReport progress,
               rpc::Reply<rpc::LoadReport> reply) override {
    // This is the thread that serves the calls. The stage's own thread was made before.
    if (const Result<graph::Plan> plan = from_wire(params.plan);
        plan.ok() && params.rank < static_cast<uint32_t>(num_ranks(*plan))) {
      const graph::RankPlace place = place_of(*plan, RankId(params.rank));
      const graph::StagePlan& stage = plan->stages[static_cast<size_t>(place.stage.value)];
      os::keep_off(stage.devices[static_cast<size_t>(place.replica)].cores);
    }
    // The stage's thread loads and hears nothing meanwhile: whoever asks again is told as well.
    loading_->add(std::move(progress));
    const auto tell_all = [loading = loading_](int64_t done, int64_t total) {
      loading->tell(done, total);
    };
    auto answer = std::make_shared<rpc::Reply<rpc::LoadReport>>(std::move(reply));
    stage_.tell(LoadCommand{std::move(params), tell_all,
                            rpc::Reply<rpc::LoadReport>([loading = loading_, answer](auto result) {
                              loading->forget();
                              (*answer)(std::move(result));
                            })});
  }
  void on_connect(rpc::ConnectParams params, rpc::Reply<Ok> reply) override {
    stage_.tell(ConnectCommand{std::move(params), std::move(reply)});
  }
  void on_attach(uint64_t client, uint8_t lane, rpc::ResultSinkHandle sink,
                 rpc::Reply<Ok> reply) override {
    stage_.tell(AttachCommand{
        client, graph::LaneId(lane),
        [sink](rpc::LaneResults results) mutable { return sink.push(std::move(results)); },
        std::move(reply)});
  }
  void on_submit(uint64_t client, std::vector<rpc::GenerateRequest> requests,
                 rpc::Reply<Ok> reply) override {
    stage_.tell(SubmitCommand{client, std::move(requests), std::move(reply)});
  }
  void on_cancel(uint64_t client, std::vector<uint64_t> request_ids,
                 rpc::Reply<Ok> reply) override {
    stage_.tell(CancelCommand{client, std::move(request_ids), std::move(reply)});
  }
  void on_detach(uint64_t client) override { stage_.tell(DetachCommand{client}); }
  void on_stats(rpc::Reply<rpc::RankStats> reply) override {
    stage_.tell(StatsCommand{std::move(reply)});
  }
  void on_trace(uint64_t since, rpc::Reply<StepEvents> reply) override {
    reply(stage_.trace().read(since));
  }
  void on_shutdown(rpc::Reply<Ok> reply) override {
    stage_.tell(ShutdownCommand{std::move(reply)});
  }
  void on_watch(bool of_links, rpc::Reply<Ok> reply) override {
    stage_.tell(WatchCommand{of_links, std::move(reply)});
  }
  uint64_t on_beat() override { return stage_.beat().count(); }
  void on_fence(uint8_t lane, uint32_t epoch, rpc::Reply<rpc::StageHoldings> reply) override {
    stage_.tell(FenceCommand{graph::LaneId(lane), PlanEpoch(epoch), std::move(reply)});
  }
  void on_resume(uint8_t lane, uint32_t epoch, std::vector<rpc::StageHoldings> stages,
                 rpc::Reply<Ok> reply) override {
    stage_.tell(
        ResumeCommand{graph::LaneId(lane), PlanEpoch(epoch), std::move(stages), std::move(reply)});
  }

 private:
  StageHandle stage_;
  const std::shared_ptr<LoadWatchers> loading_ = std::make_shared<LoadWatchers>();
};

/// A socket's option, or nothing if that is no socket.
std::optional<int> socket_option(int socket, int option) {
  int value = 0;
  socklen_t size = sizeof value;
  if (::getsockopt(socket, SOL_SOCKET, option, &value, &size) != 0) return std::nullopt;
  return value;
}

[[noreturn]] void leave_without_room(const Error& error) {
  std::fprintf(stderr, "chainpump rank: %s\n", error.message.c_str());
  std::fflush(stderr);
  ::_exit(5);
}

}  // namespace

int run_rank(UniqueFd control) {
  if (!socket_option(control.get(), SO_TYPE)) {
    std::fprintf(stderr, "chainpump: rank: no control connection; a run starts its ranks itself\n");
    ::_exit(2);
  }
  // Given by an agent, whose descriptor it is else: none but what is given is open at the start.
  UniqueFd listener;
  if (socket_option(kListenFd, SO_ACCEPTCONN).value_or(0) == 1) listener.reset(kListenFd);
  Result<ActorSystem> actors = ActorSystem::create();
  if (!actors.ok()) leave_without_room(actors.error());
  Result<StageHandle> stage =
      spawn_stage(actors->system(), std::make_shared<LoopbackHub>(), steady_clock());
  if (!stage.ok()) leave_without_room(stage.error());
  Handler handler(*std::move(stage));
  const Status served = serve_rank(std::move(control), std::move(listener), handler);
  if (!served.ok())
    std::fprintf(stderr, "chainpump rank: control: %s\n", served.error().message.c_str());
  // Its stage may still compute for somebody who is gone; nothing here is worth an orderly end.
  std::fflush(stderr);
  ::_exit(served.ok() ? 0 : 5);
}

}  // namespace chainpump::actors
