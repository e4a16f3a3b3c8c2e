#include "cli/chaos_ranks.h"

#include <algorithm>
#include <future>
#include <mutex>

#include "actors/service_folder.h"
#include "transport/rpc/unix_socket.h"

namespace chainpump::cli {
namespace {

using transport::rpc::RankClient;
using transport::rpc::RankStats;

constexpr Duration kAskEvery = std::chrono::milliseconds(100);
constexpr Duration kAnswerMax = std::chrono::minutes(1);  // of one that may be stopped
constexpr Duration kArmMax = std::chrono::seconds(2);

void add(std::vector<StageCounts>& to, const RankStats& stats) {
  const auto stage = static_cast<size_t>(stats.stage.stage);
  if (to.size() <= stage) to.resize(stage + 1);
  to[stage].tokens += stats.stage.tokens;
  to[stage].tokens_held += stats.stage.tokens_held;
  to[stage].tokens_rebuilt += stats.stage.tokens_rebuilt;
  to[stage].frames_refused += stats.stage.frames_refused;
  to[stage].frames_stale += stats.stage.frames_stale;
}

}  // namespace

/// Shared with the calls that it has not answered yet.
struct ChaosRanks::Rank {
  std::unique_ptr<RankClient> client;  // this thread's
  mutable std::mutex mutex;
  bool is_asked = false;
  bool is_greeted = false;
  std::optional<RankStats> said;

  std::optional<RankStats> last() const {
    const std::lock_guard lock(mutex);
    return said;
  }
};

Result<std::unique_ptr<ChaosRanks>> ChaosRanks::create(std::string folder) {
  ASSIGN_OR_RETURN(auto thread, transport::rpc::RpcThread::create());
  return std::unique_ptr<ChaosRanks>(new ChaosRanks(std::move(folder), std::move(thread)));
}

ChaosRanks::~ChaosRanks() {
  for (auto& [process, rank] : ranks_) rank->client.reset();
}

void ChaosRanks::meet(const ServiceProcess& process) {
  Result<UniqueFd> socket =
      transport::rpc::connect_unix(actors::rank_socket(folder_, RankId(process.number)));
  if (!socket.ok()) return;  // not yet
  auto rank = std::make_shared<Rank>();
  rank->client = std::make_unique<RankClient>(thread_, std::move(*socket), [](const Error&) {});
  rank->client->hello(kAnswerMax, [rank, pid = process.name.pid](const auto& reply) {
    const std::lock_guard lock(rank->mutex);
    // Another may have taken the number meanwhile.
    rank->is_greeted = reply.ok() && reply->pid == pid;
  });
  ranks_[process] = std::move(rank);
}

void ChaosRanks::look(const std::vector<ServiceProcess>& processes, TimePoint now) {
  for (auto it = ranks_.begin(); it != ranks_.end();) {
    if (std::find(processes.begin(), processes.end(), it->first) != processes.end()) {
      ++it;
      continue;
    }
    it->second->client.reset();
    if (const auto said = it->second->last()) add(gone_, *said);
    it = ranks_.erase(it);
  }
  if (now - asked_ < kAskEvery) return;
  asked_ = now;
  for (const ServiceProcess& process : processes)
    if (process.role == ServiceRole::rank && !ranks_.contains(process)) meet(process);
  for (const auto& [process, rank] : ranks_) {
    {
      const std::lock_guard lock(rank->mutex);
      if (!rank->is_greeted || std::exchange(rank->is_asked, true)) continue;
    }
    rank->client->stats(kAnswerMax, [rank = rank](Result<RankStats> stats) {
      const std::lock_guard lock(rank->mutex);
      rank->is_asked = false;
      if (stats.ok()) rank->said = std::move(*stats);
    });
  }
}

const ChaosRanks::Rank* ChaosRanks::find(const ServiceProcess& rank) const {
  const auto found = ranks_.find(rank);
  return found == ranks_.end() ? nullptr : found->second.get();
}

std::vector<ServiceProcess> ChaosRanks::at_work() const {
  std::vector<ServiceProcess> out;
  for (const auto& [process, rank] : ranks_) {
    const auto said = rank->last();
    if (said && std::any_of(said->links.begin(), said->links.end(),
                            [](const auto& link) { return !link.transport.empty(); }))
      out.push_back(process);
  }
  return out;
}

std::optional<int32_t> ChaosRanks::stage_of(const ServiceProcess& rank) const {
  const Rank* const found = find(rank);
  const auto said = found == nullptr ? std::nullopt : found->last();
  return said ? std::optional(said->stage.stage) : std::nullopt;
}

std::vector<uint8_t> ChaosRanks::lanes_of(const ServiceProcess& rank) const {
  const Rank* const found = find(rank);
  const auto said = found == nullptr ? std::nullopt : found->last();
  return said ? said->stage.lanes : std::vector<uint8_t>();
}

Status ChaosRanks::arm(const ServiceProcess& rank, const transport::FaultOrder& order) {
  const Rank* const found = find(rank);
  if (found == nullptr) return make_error(ErrorCode::not_found, "there is no such rank");
  const auto answer = std::make_shared<std::promise<Status>>();
  found->client->arm(order, kArmMax, [answer](const Result<Ok>& armed) {
    answer->set_value(armed.ok() ? ok_status() : Status(armed.error()));
  });
  return answer->get_future().get();
}

std::vector<StageCounts> ChaosRanks::by_stage() const {
  std::vector<StageCounts> out = gone_;
  for (const auto& [process, rank] : ranks_)
    if (const auto said = rank->last()) add(out, *said);
  return out;
}

}  // namespace chainpump::cli
