#include "actors/remote_host.h"

#include <future>
#include <map>
#include <mutex>

#include "actors/os/affinity.h"
#include "actors/service_folder.h"
#include "transport/rpc/agent_client.h"
#include "transport/rpc/unix_socket.h"

namespace chainpump::actors {
namespace {

constexpr Duration kAgentDeadline = std::chrono::seconds(5);

/// Which processes run, so that each end is told once: by the agent, or by its own end.
class Exits {
 public:
  explicit Exits(RankHost::OnExit on_exit) : on_exit_(std::move(on_exit)) {}
  /// Its end may have been told before.
  void started(RankId rank, uint32_t run) {
    std::string how;
    {
      const std::lock_guard lock(mutex_);
      const auto ended = ended_.find(rank);
      if (ended == ended_.end() || ended->second.first != run) {
        running_[rank] = run;
        return;
      }
      how = ended->second.second;
    }
    on_exit_(rank, std::move(how));
  }
  void never_started(RankId rank) {  // as spawn() says itself
    const std::lock_guard lock(mutex_);
    running_.erase(rank);
  }
  void exited(RankId rank, uint32_t run, std::string how) {
    {
      const std::lock_guard lock(mutex_);
      const auto found = running_.find(rank);
      if (found == running_.end() || found->second != run) {
        ended_[rank] = {run, std::move(how)};
        return;
      }
      running_.erase(found);
    }
    on_exit_(rank, std::move(how));
  }
  void all_exited(const std::string& how) {
    std::map<RankId, uint32_t> gone;
    {
      const std::lock_guard lock(mutex_);
      gone.swap(running_);
    }
    for (const auto& [rank, run] : gone) on_exit_(rank, how);
  }

 private:
  const RankHost::OnExit on_exit_;
  std::mutex mutex_;
  std::map<RankId, uint32_t> running_;                        // with the run
  std::map<RankId, std::pair<uint32_t, std::string>> ended_;  // before we knew that they ran
};

class RemoteHost final : public RankHost {
 public:
  RemoteHost(rpc::RpcThread rpc, UniqueFd socket, OnExit on_exit, AgentLoss on_loss)
      : exits_(std::make_shared<Exits>(std::move(on_exit))),
        rpc_(std::move(rpc)),
        agent_(rpc_, std::move(socket), [exits = exits_, on_loss](const Error&) {
          if (on_loss == AgentLoss::ends_ranks) exits->all_exited("its node agent died");
        }) {}

  Status start() {
    const auto greeted = answered<rpc::HelloReply>(
        [&](auto callback) { agent_.hello(kAgentDeadline, std::move(callback)); });
    if (!greeted.ok()) return greeted.error();
    agent_.exits([exits = exits_](uint32_t rank, uint32_t run,
                                  std::string how) { exits->exited(RankId(rank), run, how); },
                 [](const Result<Ok>&) {});
    ASSIGN_OR_RETURN(before_, answered<std::vector<rpc::AgentProcess>>([&](auto callback) {
                       agent_.list(kAgentDeadline, std::move(callback));
                     }));
    for (const rpc::AgentProcess& process : before_) runs_[RankId(process.rank)] = process.run;
    return ok_status();
  }

  Result<std::vector<Found>> find() override {
    std::vector<Found> found;
    for (const rpc::AgentProcess& process : before_) {
      if (!process.runs) continue;
      const RankId rank(process.rank);
      Result<UniqueFd> socket = rpc::connect_unix(process.socket);
      found.push_back({rank, socket.ok() ? make_rpc_port(rpc_, std::move(*socket)) : nullptr});
      exits_->started(rank, process.run);
    }
    return found;
  }

  Result<std::shared_ptr<RankPort>> spawn(RankId rank) override {
    const uint32_t run = ++runs_[rank];
    exits_->started(rank, run);  // before it can end
    auto path = answered<std::string>(
        [&](auto callback) { agent_.spawn(rank.value, run, kAgentDeadline, std::move(callback)); });
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
  std::vector<rpc::AgentProcess> before_;  // this one
  std::map<RankId, uint32_t> runs_;        // the last of each number
};

}  // namespace

Result<std::unique_ptr<RankHost>> make_remote_host(const std::string& folder,
                                                   RankHost::OnExit on_exit, AgentLoss on_loss,
                                                   const std::vector<int>& busy_cores) {
  ASSIGN_OR_RETURN(UniqueFd socket, rpc::connect_unix(agent_socket(folder)));
  ASSIGN_OR_RETURN(rpc::RpcThread rpc, rpc::RpcThread::create([&] { os::keep_off(busy_cores); }));
  auto host =
      std::make_unique<RemoteHost>(std::move(rpc), std::move(socket), std::move(on_exit), on_loss);
  RETURN_IF_ERROR(host->start());
  return Result<std::unique_ptr<RankHost>>(std::move(host));
}

}  // namespace chainpump::actors
