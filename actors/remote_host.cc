#include "actors/remote_host.h"

#include <future>
#include <mutex>
#include <set>

#include "actors/os/affinity.h"
#include "actors/service_folder.h"
#include "transport/rpc/agent_client.h"
#include "transport/rpc/unix_socket.h"

namespace chainpump::actors {
namespace {

constexpr Duration kAgentDeadline = std::chrono::seconds(5);

/// Which ranks run, so that each end is told once: by the agent, or by its own end.
class Exits {
 public:
  explicit Exits(RankHost::OnExit on_exit) : on_exit_(std::move(on_exit)) {}
  void started(StageIndex stage) {
    const std::lock_guard lock(mutex_);
    running_.insert(stage);
  }
  void exited(StageIndex stage, std::string how) {
    {
      const std::lock_guard lock(mutex_);
      if (running_.erase(stage) == 0) return;
    }
    on_exit_(stage, std::move(how));
  }
  void all_exited(const std::string& how) {
    std::set<StageIndex> gone;
    {
      const std::lock_guard lock(mutex_);
      gone.swap(running_);
    }
    for (const StageIndex stage : gone) on_exit_(stage, how);
  }

 private:
  const RankHost::OnExit on_exit_;
  std::mutex mutex_;
  std::set<StageIndex> running_;
};

class RemoteHost final : public RankHost {
 public:
  RemoteHost(rpc::RpcThread rpc, UniqueFd socket, OnExit on_exit)
      : exits_(std::make_shared<Exits>(std::move(on_exit))),
        rpc_(std::move(rpc)),
        agent_(rpc_, std::move(socket),
               [exits = exits_](const Error&) { exits->all_exited("its node agent died"); }) {}

  Status start() {
    const auto greeted = answered<rpc::HelloReply>(
        [&](auto callback) { agent_.hello(kAgentDeadline, std::move(callback)); });
    if (!greeted.ok()) return greeted.error();
    agent_.exits(
        [exits = exits_](int32_t stage, std::string how) { exits->exited(StageIndex(stage), how); },
        [](const Result<Ok>&) {});
    return ok_status();
  }

  Result<std::shared_ptr<RankPort>> spawn(StageIndex stage) override {
    exits_->started(stage);  // before it can end
    auto path = answered<std::string>(
        [&](auto callback) { agent_.spawn(stage.value, kAgentDeadline, std::move(callback)); });
    Result<UniqueFd> socket = path.ok() ? rpc::connect_unix(*path) : path.error();
    if (!socket.ok()) {
      exits_->exited(stage, "never started");
      return std::move(socket).error();
    }
    return make_rpc_port(rpc_, std::move(*socket));
  }

  void kill(StageIndex stage) override {
    agent_.kill(stage.value, kAgentDeadline, [](const Result<Ok>&) {});
  }

 private:
  template <typename T, typename Start>
  static Result<T> answered(Start start) {
    auto promise = std::make_shared<std::promise<Result<T>>>();
    auto future = promise->get_future();
    start([promise](Result<T> result) { promise->set_value(std::move(result)); });
    return future.get();  // the call has a deadline
  }

  const std::shared_ptr<Exits> exits_;
  rpc::RpcThread rpc_;
  rpc::AgentClient agent_;
};

}  // namespace

Result<std::unique_ptr<RankHost>> make_remote_host(const std::string& folder,
                                                   RankHost::OnExit on_exit,
                                                   const std::vector<int>& busy_cores) {
  ASSIGN_OR_RETURN(UniqueFd socket, rpc::connect_unix(agent_socket(folder)));
  ASSIGN_OR_RETURN(rpc::RpcThread rpc, rpc::RpcThread::create([&] { os::keep_off(busy_cores); }));
  auto host = std::make_unique<RemoteHost>(std::move(rpc), std::move(socket), std::move(on_exit));
  RETURN_IF_ERROR(host->start());
  return Result<std::unique_ptr<RankHost>>(std::move(host));
}

}  // namespace chainpump::actors
