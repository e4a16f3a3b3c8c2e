#include "actors/rank.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <mutex>
#include <optional>

#include "actors/actor_system.h"
#include "actors/convert.h"
#include "actors/find_model.h"
#include "actors/os/affinity.h"
#include "actors/stage_actor.h"
#include "transport/rpc/channel.h"
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
  Handler(StageHandle stage, RankTerms terms, std::shared_ptr<const rpc::Credentials> credentials)
      : stage_(std::move(stage)), terms_(std::move(terms)), credentials_(std::move(credentials)) {}

  void on_load(rpc::LoadParams params, rpc::ProgressReport progress,
               rpc::Reply<rpc::LoadReport> reply) override {
    if (const Status here = adapt_to(terms_, params); !here.ok()) return reply(here.error());
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
    FindModel find = terms_.node.empty() ? FindModel() : finder(params);
    stage_.tell(LoadCommand{std::move(params), tell_all,
                            rpc::Reply<rpc::LoadReport>([loading = loading_, answer](auto result) {
                              loading->forget();
                              (*answer)(std::move(result));
                            }),
                            std::move(find)});
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
    auto answer = std::make_shared<rpc::Reply<rpc::RankStats>>(std::move(reply));
    stage_.tell(StatsCommand{
        rpc::Reply<rpc::RankStats>([answer, node = terms_.node](Result<rpc::RankStats> stats) {
          if (stats.ok()) stats->stage.node = node;
          (*answer)(std::move(stats));
        })});
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
  rpc::BeatReply on_beat() override {
    return {.count = stage_.beat().count(),
            .links = stage_.links().read(steady_clock().now()),
            .steps = stage_.links().steps()};
  }
  void on_fence(uint8_t lane, uint32_t epoch, rpc::Reply<rpc::StageHoldings> reply) override {
    stage_.tell(FenceCommand{graph::LaneId(lane), PlanEpoch(epoch), std::move(reply)});
  }
  void on_resume(uint8_t lane, uint32_t epoch, std::vector<rpc::StageHoldings> stages,
                 rpc::Reply<Ok> reply) override {
    stage_.tell(
        ResumeCommand{graph::LaneId(lane), PlanEpoch(epoch), std::move(stages), std::move(reply)});
  }
  void on_arm(const transport::FaultOrder& fault, rpc::Reply<Ok> reply) override {
    stage_.tell(ArmCommand{fault, std::move(reply)});
  }
  void on_take_in(rpc::KvCopy copy, rpc::Reply<rpc::KvAddress> reply) override {
    stage_.tell(TakeInCommand{std::move(copy), std::move(reply)});
  }
  void on_copy(rpc::KvCopy copy, rpc::ProgressReport progress, rpc::Reply<Ok> reply) override {
    stage_.tell(CopyCommand{std::move(copy), std::move(progress), std::move(reply)});
  }
  void on_finish_copy(rpc::Reply<Ok> reply) override {
    stage_.tell(FinishCopyCommand{std::move(reply)});
  }

 private:
  /// Runs on the stage's thread, where loading does.
  FindModel finder(const rpc::LoadParams& params) const {
    return [terms = terms_, credentials = credentials_, model = from_wire(params.plan.model),
            path = params.plan.model_path, sources = others(params.weights)](
               const graph::StagePlan& stage, const rpc::ProgressReport& progress) {
      return find_model({.terms = terms,
                         .credentials = credentials,
                         .model = model,
                         .path = path,
                         .sources = sources},
                        stage, progress);
    };
  }

  /// What is on this machine is found without asking.
  std::vector<rpc::WeightSource> others(std::vector<rpc::WeightSource> sources) const {
    std::erase_if(sources,
                  [&](const rpc::WeightSource& source) { return source.name == terms_.node; });
    return sources;
  }

  StageHandle stage_;
  const RankTerms terms_;
  const std::shared_ptr<const rpc::Credentials> credentials_;
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

Status adapt_to(const RankTerms& terms, rpc::LoadParams& params) {
  const std::string own = terms.data_address.empty() ? "127.0.0.1" : terms.data_address;
  if (params.listen_address.empty()) params.listen_address = own;
  if (params.listen_address != own && !rpc::is_loopback_address(params.listen_address + ":0"))
    return make_error(ErrorCode::invalid_argument,
                      "links at {} are refused: it is not on this machine's trusted network",
                      params.listen_address);
  if (!terms.cache_folder.empty()) params.cache_folder = terms.cache_folder;
  if (terms.node.empty()) return ok_status();
  for (rpc::StagePlan& stage : params.plan.stages)
    for (rpc::DevicePlan& device : stage.devices)
      if (device.node != terms.node) device.cores.clear();
  return ok_status();
}

std::vector<std::string> to_flags(const RankTerms& terms) {
  std::vector<std::string> flags;
  for (const auto& [flag, value] :
       {std::pair("--node", &terms.node), std::pair("--data-address", &terms.data_address),
        std::pair("--certificates", &terms.certificates), std::pair("--models", &terms.models),
        std::pair("--cache-folder", &terms.cache_folder), std::pair("--weights", &terms.weights)}) {
    if (value->empty()) continue;
    flags.emplace_back(flag);
    flags.push_back(*value);
  }
  return flags;
}

int run_rank(UniqueFd control, const RankTerms& terms) {
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
      spawn_stage(actors->system(), std::make_shared<LoopbackHub>(true), steady_clock());
  if (!stage.ok()) leave_without_room(stage.error());
  rpc::RankServerOptions options;
  if (!terms.certificates.empty()) {
    auto loaded = rpc::Credentials::load(terms.certificates);
    if (!loaded.ok()) leave_without_room(loaded.error());
    options.admission = {*loaded, rpc::Role::coordinator, [](const std::string& what) {
                           std::fprintf(stderr, "chainpump rank: %s\n", what.c_str());
                         }};
  }
  Handler handler(*std::move(stage), terms, options.admission.credentials);
  const Status served = serve_rank(std::move(control), std::move(listener), handler, options);
  if (!served.ok())
    std::fprintf(stderr, "chainpump rank: control: %s\n", served.error().message.c_str());
  // Its stage may still compute for somebody who is gone; nothing here is worth an orderly end.
  std::fflush(stderr);
  ::_exit(served.ok() ? 0 : 5);
}

}  // namespace chainpump::actors
