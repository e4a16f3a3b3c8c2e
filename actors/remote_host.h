// Ranks that a node agent in a process of its own starts: the coordinator's side.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "actors/rank_host.h"

namespace chainpump::actors {

enum class AgentLoss : uint8_t {
  ends_ranks,  // its ranks count as gone
  is_seen_to,  // by `serve`, which ends this process and starts both anew
};

/// Connects to the agent of the service in `folder`. The thread that serves the ranks' ports keeps
/// off `busy_cores`, where there are others. not_found: no agent listens there; no_room.
Result<std::unique_ptr<RankHost>> make_remote_host(const std::string& folder,
                                                   RankHost::OnExit on_exit, AgentLoss on_loss,
                                                   const std::vector<int>& busy_cores);

}  // namespace chainpump::actors
