// What a service's processes find each other by: names in one folder, which only its user may
// enter.
#pragma once

#include <string>

#include "base/ids.h"

namespace chainpump::actors {

inline std::string agent_socket(const std::string& folder) { return folder + "/agent.sock"; }
inline std::string coordinator_socket(const std::string& folder) {
  return folder + "/coordinator.sock";
}
inline std::string rank_socket(const std::string& folder, RankId rank) {
  return fmt::format("{}/rank-{}.sock", folder, rank);
}
/// The plan to bring up (transport/rpc/service_file.h).
inline std::string plan_file(const std::string& folder) { return folder + "/plan"; }

/// Another that is about to be in force: the plan after so many changes.
inline std::string plan_file(const std::string& folder, uint32_t number) {
  return fmt::format("{}/plan-{}", folder, number);
}

/// The nodes that have joined (transport/rpc/service_file.h).
inline std::string nodes_file(const std::string& folder) { return folder + "/nodes"; }

/// What its coordinators leave each other (actors/store).
inline std::string state_file(const std::string& folder) { return folder + "/state.db"; }

/// How a coordinator ends that leads no more, or may not (actors/succession.h): another one takes
/// its place among those who stand by.
inline constexpr int kSteppedDown = 6;

/// How a coordinator ends whose connection to a node agent that lives has broken: another one
/// takes its place.
inline constexpr int kCutOff = 7;

/// The descriptor on which an agent or a coordinator finds its listening socket.
inline constexpr int kServiceListenFd = 3;

}  // namespace chainpump::actors
