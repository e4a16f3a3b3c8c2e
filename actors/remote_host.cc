#include "actors/remote_host.h"

#include <algorithm>
#include <future>
#include <map>
#include <mutex>

#include "actors/os/affinity.h"
#include "transport/rpc/agent_client.h"
#include "transport/rpc/channel.h"

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
  RemoteHost(const AgentLine& line, rpc::RpcThread rpc, rpc::Channel channel, OnExit on_exit,
             AgentLoss on_loss)
      : line_(line),
        exits_(std::make_shared<Exits>(std::move(on_exit))),
        rpc_(std::move(rpc)),
        agent_(rpc_, std::move(channel), [exits = exits_, on_loss, line](const Error&) {
          if (line.on_lost) line.on_lost();
          if (on_loss == AgentLoss::ends_ranks) exits->all_exited(line.how_lost);
        }) {}

  Status start(bool find_living) {
    const auto greeted = answered<rpc::HelloReply>(
        [&](auto callback) { agent_.hello(kAgentDeadline, std::move(callback)); });
    if (!greeted.ok()) return greeted.error();
    const auto leads = answered<Ok>(
        [&](auto callback) { agent_.lead(line_.term, kAgentDeadline, std::move(callback)); });
    if (!leads.ok()) return leads.error();
    agent_.exits([exits = exits_](uint32_t rank, uint32_t run,
                                  std::string how) { exits->exited(RankId(rank), run, how); },
                 [](const Result<Ok>&) {});
    RETURN_IF_ERROR(list());
    return find_living ? ok_status() : end_living();
  }

  Result<std::vector<Found>> find() override {
    std::vector<Found> found;
    for (const rpc::AgentProcess& process : before_) {
      if (!process.runs) continue;
      const RankId rank(process.rank);
      Result<rpc::Channel> channel = open(process.socket);
      found.push_back({rank, channel.ok() ? make_rpc_port(rpc_, std::move(*channel)) : nullptr});
      if (line_.on_address) line_.on_address(rank, process.socket);
      exits_->started(rank, process.run);
    }
    return found;
  }

  Result<std::shared_ptr<RankPort>> spawn(RankId rank) override {
    const uint32_t run = ++runs_[rank];
    exits_->started(rank, run);  // before it can end
    auto path = answered<std::string>(
        [&](auto callback) { agent_.spawn(rank.value, run, kAgentDeadline, std::move(callback)); });
    if (!path.ok()) {
      exits_->never_started(rank);
      return std::move(path).error();
    }
    if (line_.on_address) line_.on_address(rank, *path);
    Result<rpc::Channel> channel = open(*path);
    if (channel.ok()) return make_rpc_port(rpc_, std::move(*channel));
    const ErrorCode code = channel.error().code;
    if (code == ErrorCode::not_found || code == ErrorCode::disconnected)
      return std::shared_ptr<RankPort>();  // it has ended, as the agent says soon
    exits_->never_started(rank);
    return std::move(channel).error();
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

  Result<rpc::Channel> open(const std::string& socket) const {
    return rpc::open_channel(socket, line_.credentials, {rpc::Role::node, line_.node});
  }

  Status list() {
    ASSIGN_OR_RETURN(before_, answered<std::vector<rpc::AgentProcess>>([&](auto callback) {
                       agent_.list(kAgentDeadline, std::move(callback));
                     }));
    for (const rpc::AgentProcess& process : before_) runs_[RankId(process.rank)] = process.run;
    return ok_status();
  }

  /// Who was told to be gone before may live on there; nobody knows of it.
  Status end_living() {
    const TimePoint deadline = steady_clock().now() + kAgentDeadline;
    const auto runs = [](const rpc::AgentProcess& process) { return process.runs; };
    while (std::any_of(before_.begin(), before_.end(), runs)) {
      if (steady_clock().now() >= deadline)
        return make_error(ErrorCode::deadline_exceeded, "{}: its ranks do not end", line_.address);
      for (const rpc::AgentProcess& process : before_)
        if (process.runs) kill(RankId(process.rank));
      RETURN_IF_ERROR(list());  // after those calls
    }
    return ok_status();
  }

  const AgentLine line_;
  const std::shared_ptr<Exits> exits_;
  rpc::RpcThread rpc_;
  rpc::AgentClient agent_;
  std::vector<rpc::AgentProcess> before_;  // this one
  std::map<RankId, uint32_t> runs_;        // the last of each number
};

}  // namespace

Result<std::unique_ptr<RankHost>> make_remote_host(const AgentLine& line, RankHost::OnExit on_exit,
                                                   AgentLoss on_loss,
                                                   const std::vector<int>& busy_cores,
                                                   bool find_living) {
  ASSIGN_OR_RETURN(rpc::Channel channel,
                   rpc::open_channel(line.address, line.credentials, {rpc::Role::node, line.node}));
  ASSIGN_OR_RETURN(rpc::RpcThread rpc, rpc::RpcThread::create([&] { os::keep_off(busy_cores); }));
  auto host = std::make_unique<RemoteHost>(line, std::move(rpc), std::move(channel),
                                           std::move(on_exit), on_loss);
  RETURN_IF_ERROR(host->start(find_living));
  return Result<std::unique_ptr<RankHost>>(std::move(host));
}

}  // namespace chainpump::actors
