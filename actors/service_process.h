// The programs of a service's processes beside its ranks and its gateway: node agent and
// coordinator. Each serves its socket in the service's folder, which it inherits already listening,
// and ends with whoever started it.
#pragma once

#include <string>

#include "actors/rank.h"

namespace chainpump::actors {

/// Starts and ends ranks when told, on these terms. Returns only if it cannot serve, with the exit
/// status.
int run_agent(const std::string& folder, const RankTerms& terms);

/// Brings up the plan in `plan_path` with the folder's agent, or takes over from the coordinator
/// that died before it, as that has left it in the folder's state file. Returns the exit status
/// once that was stopped or has failed.
int run_coordinator(const std::string& folder, const std::string& plan_path);

}  // namespace chainpump::actors
