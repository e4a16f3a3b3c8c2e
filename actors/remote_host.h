// Ranks that a node agent in a process of its own starts, on this machine or another: the
// coordinator's side.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/rank_host.h"
#include "transport/rpc/credentials.h"

namespace chainpump::actors {

enum class AgentLoss : uint8_t {
  ends_ranks,  // its ranks count as gone
  is_seen_to,  // by `serve`, which ends this process and starts both anew
};

/// An agent, and how its ranks are reached.
struct AgentLine {
  std::string address;   // its socket
  std::string how_lost;  // "its node agent died": of its ranks, when the connection ends
  std::shared_ptr<const transport::rpc::Credentials> credentials = {};  // on a network
  std::string node = {};                                                // then: whose it is
  uint64_t term = 0;  // of the coordinator, where several follow each other
  /// Where a rank listens that was started or found.
  std::function<void(RankId rank, const std::string& socket)> on_address = {};
  std::function<void()> on_lost = {};  // any thread
};

/// Connects to the agent. The thread that serves the ranks' ports keeps off `busy_cores`, where
/// there are others. `find_living`: or every rank that runs there is ended first. not_found: no
/// agent listens there; disconnected, deadline_exceeded: nor on the network; cancelled: another
/// coordinator leads; no_room.
Result<std::unique_ptr<RankHost>> make_remote_host(const AgentLine& line, RankHost::OnExit on_exit,
                                                   AgentLoss on_loss,
                                                   const std::vector<int>& busy_cores,
                                                   bool find_living = true);

}  // namespace chainpump::actors
