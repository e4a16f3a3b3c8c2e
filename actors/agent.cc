#include "actors/agent.h"

#include "actors/os/process.h"
#include "actors/service_folder.h"
#include "transport/rpc/channel.h"
#include "transport/rpc/unix_socket.h"

namespace chainpump::actors {
namespace {

namespace rpc = transport::rpc;

constexpr uint32_t kRanksMax = 1 << 16;

}  // namespace

Status Agent::run(UniqueFd listener, const rpc::Admission& admission) {
  auto ranks = RankProcesses::create(
      os::self_exe(), [this](RankId rank, std::string how) { on_exit(rank, std::move(how)); },
      to_flags(place_.terms));
  if (!ranks.ok()) return ranks.error();
  {
    const std::lock_guard lock(mutex_);
    ranks_ = *std::move(ranks);
  }
  return server_.run(std::move(listener), admission);
}

void Agent::end_all() {
  for (const rpc::AgentProcess& process : on_list())
    if (process.runs) on_kill(process.rank);
}

int Agent::num_running() {
  const std::lock_guard lock(mutex_);
  int running = 0;
  for (const auto& [rank, run] : runs_) running += run.runs;
  return running;
}

Result<std::string> Agent::on_spawn(uint32_t number, uint32_t run) {
  if (number >= kRanksMax)
    return make_error(ErrorCode::invalid_argument, "there is no rank {}", number);
  const RankId rank(number);
  {
    const std::lock_guard lock(mutex_);
    Run& last = runs_[rank];
    if (last.runs || run <= last.number)
      return make_error(ErrorCode::invalid_argument, "rank {} {}", number,
                        last.runs ? "runs already" : "had that run before");
    last = {run, true};
  }
  std::string socket = rank_socket(place_.folder, rank);
  Result<UniqueFd> listener = place_.address.empty() ? rpc::listen_unix(socket)
                                                     : rpc::listen_network(place_.address + ":0");
  if (listener.ok() && !place_.address.empty()) socket = rpc::own_address(*listener);
  Result<UniqueFd> lifeline =
      listener.ok() ? ranks_->spawn(rank, *listener) : Result<UniqueFd>(listener.error());
  if (lifeline.ok()) lifelines_[rank] = *std::move(lifeline);
  const std::lock_guard lock(mutex_);
  Run& mine = runs_[rank];
  if (!lifeline.ok()) {
    mine.runs = false;
    return lifeline.error();
  }
  mine.socket = socket;
  return socket;
}

void Agent::on_kill(uint32_t rank) {
  const std::lock_guard lock(mutex_);
  if (ranks_) ranks_->kill(RankId(rank));
}

std::vector<rpc::AgentProcess> Agent::on_list() {
  const std::lock_guard lock(mutex_);
  std::vector<rpc::AgentProcess> processes;
  for (const auto& [rank, run] : runs_)
    processes.push_back({rank.value, run.number, run.runs, run.socket});
  return processes;
}

void Agent::on_exit(RankId rank, std::string how) {
  uint32_t run = 0;
  {
    const std::lock_guard lock(mutex_);
    Run& last = runs_[rank];
    last.runs = false;
    run = last.number;
  }
  server_.tell_exit(rank.value, run, std::move(how));
}

}  // namespace chainpump::actors
