#include "actors/rank_host.h"

#include <csignal>
#include <map>
#include <mutex>
#include <optional>

#include "actors/os/affinity.h"
#include "actors/os/process.h"
#include "actors/rank.h"

namespace chainpump::actors {
namespace {

class ProcessHost final : public RankHost {
 public:
  ProcessHost(std::string program, OnExit on_exit)
      : program_(std::move(program)), on_exit_(std::move(on_exit)) {}

  Status start(const std::vector<int>& busy_cores) {
    ASSIGN_OR_RETURN(rpc::RpcThread rpc, rpc::RpcThread::create([&] { os::keep_off(busy_cores); }));
    rpc_.emplace(std::move(rpc));
    ASSIGN_OR_RETURN(watcher_, os::ProcessWatcher::create([this](pid_t pid) { reap(pid); }));
    return ok_status();
  }

  Result<std::shared_ptr<RankPort>> spawn(StageIndex stage) override {
    ASSIGN_OR_RETURN(auto sockets, os::make_socketpair());
    os::SpawnOptions options;
    options.program = program_;
    options.argv = {"chainpump", "rank", fmt::format("stage-{}", stage)};
    options.descriptors = {{sockets.second.get(), kControlFd}};
    ASSIGN_OR_RETURN(os::Process process, os::spawn(options));
    auto port = make_rpc_port(*rpc_, std::move(sockets.first));
    const pid_t pid = process.pid();
    const std::lock_guard lock(mutex_);
    const auto [entry, is_new] = ranks_.emplace(pid, Rank{stage, std::move(process)});
    CHECK(is_new);
    RETURN_IF_ERROR(watcher_->watch(entry->second.process));
    return port;
  }

  void kill(StageIndex stage) override {
    const std::lock_guard lock(mutex_);
    for (auto& [pid, rank] : ranks_)
      if (rank.stage == stage) (void)rank.process.kill(SIGKILL);
  }

 private:
  struct Rank {
    StageIndex stage;
    os::Process process;
  };

  void reap(pid_t pid) {
    StageIndex stage;
    std::string how;
    {
      const std::lock_guard lock(mutex_);
      const auto found = ranks_.find(pid);
      if (found == ranks_.end()) return;
      const Result<os::ExitStatus> status = found->second.process.wait(std::chrono::seconds(1));
      how = status.ok() ? os::to_string(*status) : status.error().message;
      stage = found->second.stage;
      ranks_.erase(found);
    }
    on_exit_(stage, std::move(how));
  }

  const std::string program_;
  const OnExit on_exit_;
  std::optional<rpc::RpcThread> rpc_;
  std::mutex mutex_;
  std::map<pid_t, Rank> ranks_;
  std::unique_ptr<os::ProcessWatcher> watcher_;  // ends first: its thread uses the ranks
};

class LocalHost final : public RankHost {
 public:
  LocalHost(caf::actor_system& system, OnExit on_exit)
      : system_(system), on_exit_(std::move(on_exit)), hub_(std::make_shared<LoopbackHub>()) {}

  Result<std::shared_ptr<RankPort>> spawn(StageIndex stage) override {
    ASSIGN_OR_RETURN(StageHandle handle, spawn_stage(system_, hub_, steady_clock()));
    caf::actor_cast<caf::strong_actor_ptr>(handle.actor())
        ->get()
        ->attach_functor([on_exit = on_exit_, stage](const caf::error& reason) {
          on_exit(stage, reason ? "its actor failed" : "its actor ended");
        });
    stages_.emplace(stage, handle);
    return make_local_port(std::move(handle));
  }

  void kill(StageIndex stage) override {
    const auto found = stages_.find(stage);
    if (found == stages_.end()) return;
    found->second.kill();
  }

 private:
  caf::actor_system& system_;
  OnExit on_exit_;
  std::shared_ptr<LoopbackHub> hub_;
  std::map<StageIndex, StageHandle> stages_;
};

}  // namespace

Result<std::unique_ptr<RankHost>> make_process_host(std::string program, RankHost::OnExit on_exit,
                                                    const std::vector<int>& busy_cores) {
  auto host = std::make_unique<ProcessHost>(std::move(program), std::move(on_exit));
  RETURN_IF_ERROR(host->start(busy_cores));
  return Result<std::unique_ptr<RankHost>>(std::move(host));
}

std::unique_ptr<RankHost> make_local_host(caf::actor_system& system, RankHost::OnExit on_exit) {
  return std::make_unique<LocalHost>(system, std::move(on_exit));
}

}  // namespace chainpump::actors
