// Ranks that a node agent in a process of its own starts: the coordinator's side.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "actors/rank_host.h"

namespace chainpump::actors {

/// Connects to the agent of the service in `folder`. When that agent goes, its ranks count as gone.
/// The thread that serves the ranks' ports keeps off `busy_cores`, where there are others.
/// not_found: no agent listens there; no_room.
Result<std::unique_ptr<RankHost>> make_remote_host(const std::string& folder,
                                                   RankHost::OnExit on_exit,
                                                   const std::vector<int>& busy_cores);

}  // namespace chainpump::actors
