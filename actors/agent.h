// The agent of one machine: starts and ends its ranks for coordinators that connect to it. Under
// `serve` it is a process in the service's folder, and its ranks listen on paths there; of a node
// it is the process `chainpump node`, and its ranks listen on the network.
//
// Thread rule: run() in a thread that lives as long as the ranks may (actors/os/process.h), where
// coordinators' calls are carried out; end_all() and stop() in any.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "actors/rank.h"
#include "actors/rank_processes.h"
#include "transport/rpc/agent_server.h"

namespace chainpump::actors {

struct AgentPlace {
  std::string folder;   // of the ranks' sockets, unless there is an
  std::string address;  // numeric, without a port: they listen there
  RankTerms terms = {};
};

class Agent final : public transport::rpc::AgentHandler {
 public:
  explicit Agent(AgentPlace place) : place_(std::move(place)), server_(*this) {}

  /// Serves until stop(), or returns why it cannot.
  Status run(UniqueFd listener, const transport::rpc::Admission& admission);
  void stop() { server_.stop(); }
  /// Kills every rank; their ends are told as any.
  void end_all();
  int num_running();

  Result<std::string> on_spawn(uint32_t number, uint32_t run) override;
  void on_kill(uint32_t rank) override;
  std::vector<transport::rpc::AgentProcess> on_list() override;

 private:
  struct Run {
    uint32_t number = 0;
    bool runs = false;
    std::string socket = {};
  };
  void on_exit(RankId rank, std::string how);

  const AgentPlace place_;
  transport::rpc::AgentServer server_;
  std::map<RankId, UniqueFd> lifelines_;
  std::mutex mutex_;
  std::map<RankId, Run> runs_;
  std::unique_ptr<RankProcesses> ranks_;  // ends first: its thread uses the server
};

}  // namespace chainpump::actors
