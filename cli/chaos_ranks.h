// The ranks of the service that `chainpump chaos` harms: it asks each, several times a second, what
// it has counted, over the socket where coordinator and gateways find it, and tells it what to do
// to itself. What a rank said last outlives it. Thread rule: one thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/chaos_service.h"
#include "transport/rpc/rank_client.h"
#include "transport/rpc/rpc_thread.h"

namespace chainpump::cli {

/// What the ranks of a stage have counted, those that are no more among them.
struct StageCounts {
  uint64_t tokens = 0;          // positions computed
  uint64_t tokens_held = 0;     // of them again, without writing
  uint64_t tokens_rebuilt = 0;  // of them again, because they were lost
  uint64_t frames_refused = 0;  // by links
  uint64_t frames_stale = 0;    // that should have been
  uint64_t recomputed() const { return tokens_held + tokens_rebuilt; }
};

class ChaosRanks {
 public:
  /// `folder` is the service's, with the sockets.
  static Result<std::unique_ptr<ChaosRanks>> create(std::string folder);
  ~ChaosRanks();

  /// To be called often: connects to who is new, forgets who is gone, asks.
  void look(const std::vector<ServiceProcess>& processes, TimePoint now);
  /// Those that had open links when they were asked last, by their numbers.
  std::vector<ServiceProcess> at_work() const;
  /// Of one that has answered.
  std::optional<int32_t> stage_of(const ServiceProcess& rank) const;
  std::vector<uint8_t> lanes_of(const ServiceProcess& rank) const;
  /// not_found: there is none; deadline_exceeded, disconnected.
  Status arm(const ServiceProcess& rank, const transport::FaultOrder& order);

  std::vector<StageCounts> by_stage() const;

 private:
  struct Rank;
  explicit ChaosRanks(std::string folder, transport::rpc::RpcThread thread)
      : folder_(std::move(folder)), thread_(std::move(thread)) {}
  void meet(const ServiceProcess& process);
  const Rank* find(const ServiceProcess& rank) const;

  const std::string folder_;
  transport::rpc::RpcThread thread_;
  std::map<ServiceProcess, std::shared_ptr<Rank>> ranks_;
  std::vector<StageCounts> gone_;  // by stage
  TimePoint asked_;
};

}  // namespace chainpump::cli
