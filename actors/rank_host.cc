#include "actors/rank_host.h"

#include <map>
#include <optional>

#include "actors/os/affinity.h"
#include "actors/rank_processes.h"

namespace chainpump::actors {
namespace {

class ProcessHost final : public RankHost {
 public:
  Status start(std::string program, OnExit on_exit, const std::vector<int>& busy_cores) {
    ASSIGN_OR_RETURN(rpc::RpcThread rpc, rpc::RpcThread::create([&] { os::keep_off(busy_cores); }));
    rpc_.emplace(std::move(rpc));
    ASSIGN_OR_RETURN(ranks_, RankProcesses::create(std::move(program), std::move(on_exit)));
    return ok_status();
  }
  Result<std::shared_ptr<RankPort>> spawn(RankId rank) override {
    ASSIGN_OR_RETURN(UniqueFd control, ranks_->spawn(rank, UniqueFd()));
    return make_rpc_port(*rpc_, std::move(control));
  }
  void kill(RankId rank) override { ranks_->kill(rank); }

 private:
  std::optional<rpc::RpcThread> rpc_;
  std::unique_ptr<RankProcesses> ranks_;
};

class LocalHost final : public RankHost {
 public:
  LocalHost(caf::actor_system& system, OnExit on_exit)
      : system_(system), on_exit_(std::move(on_exit)), hub_(std::make_shared<LoopbackHub>()) {}

  Result<std::shared_ptr<RankPort>> spawn(RankId rank) override {
    ASSIGN_OR_RETURN(StageHandle handle, spawn_stage(system_, hub_, steady_clock()));
    caf::actor_cast<caf::strong_actor_ptr>(handle.actor())
        ->get()
        ->attach_functor([on_exit = on_exit_, rank](const caf::error& reason) {
          on_exit(rank, reason ? "its actor failed" : "its actor ended");
        });
    stages_.insert_or_assign(rank, handle);
    return make_local_port(std::move(handle));
  }

  void kill(RankId rank) override {
    const auto found = stages_.find(rank);
    if (found == stages_.end()) return;
    found->second.kill();
  }

 private:
  caf::actor_system& system_;
  OnExit on_exit_;
  std::shared_ptr<LoopbackHub> hub_;
  std::map<RankId, StageHandle> stages_;
};

}  // namespace

Result<std::unique_ptr<RankHost>> make_process_host(std::string program, RankHost::OnExit on_exit,
                                                    const std::vector<int>& busy_cores) {
  auto host = std::make_unique<ProcessHost>();
  RETURN_IF_ERROR(host->start(std::move(program), std::move(on_exit), busy_cores));
  return Result<std::unique_ptr<RankHost>>(std::move(host));
}

std::unique_ptr<RankHost> make_local_host(caf::actor_system& system, RankHost::OnExit on_exit) {
  return std::make_unique<LocalHost>(system, std::move(on_exit));
}

}  // namespace chainpump::actors
