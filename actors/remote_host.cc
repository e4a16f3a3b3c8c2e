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
  void started(RankId rank) {
    const std::lock_guard lock(mutex_);
    running_.insert(rank);
  }
  void never_started(RankId rank) {  // as spawn() says itself
    const std::lock_guard lock(mutex_);
    running_.erase(rank);
  }
  void exited(RankId rank, std::string how) {
    {
      const std::lock_guard lock(mutex_);
      if (running_.erase(rank) == 0) return;
    }
    on_exit_(rank, std::move(how));
  }
  void all_exited(const std::string& how) {
    std::set<RankId> gone;
    {
      const std::lock_guard lock(mutex_);
      gone.swap(running_);
    }
    for (const RankId rank : gone) on_exit_(rank, how);
  }

 private:
  const RankHost::OnExit on_exit_;
  std::mutex mutex_;
  std::set<RankId> running_;
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
        [exits = exits_](uint32_t rank, std::string how) { exits->exited(RankId(rank), how); },
        [](const Result<Ok>&) {});
    return ok_status();
  }

  Result<std::shared_ptr<RankPort>> spawn(RankId rank) override {
    exits_->started(rank);  // before it can end
    auto path = answered<std::string>(
        [&](auto callback) { agent_.spawn(rank.value, kAgentDeadline, std::move(callback)); });
    Result<UniqueFd> socket = path.ok() ? rpc::connect_unix(*path) : path.error();
    if (!socket.ok()) {
      exits_->never_started(rank);
      return std::move(socket).error();
    }
    return make_rpc_port(rpc_, std::move(*socket));
  }

  void kill(RankId rank) override {
    agent_.kill(rank.value, kAgentDeadline, [](const Result<Ok>&) {});
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
