// What `chainpump chaos` does, from its seed alone: which faults come when, and what the load asks
// for. Who the victim is of the ranks that there are, and which requests a fault meets, is the
// run's. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "gateway/types.h"

namespace chainpump::cli {

/// A service's processes, by what they are.
enum class ServiceRole : uint8_t { gateway, coordinator, agent, rank };
std::string_view to_string(ServiceRole role);

enum class FaultKind : uint8_t {
  kill,
  stop,
  slow,
  partition,
  corrupt,
  coordinator,
  gateway,
  agent
};

/// One kind of faults. A new one that ends or stops a process is a line in the table.
struct FaultEntry {
  FaultKind kind;
  std::string_view name;  // as users say it
  std::string_view what;  // it does
  bool can_be = false;    // not yet
  ServiceRole victim = ServiceRole::rank;
  bool is_stop = false;  // for a while; otherwise it is the process's end
  Duration apart{0};     // at least, two of the kind: as often as a service makes up for it
};
std::span<const FaultEntry> fault_entries();
const FaultEntry& entry_of(FaultKind kind);

/// "kill,stop", each once, in the table's order. invalid_argument: there is no such fault;
/// unimplemented: not yet.
Result<std::vector<FaultKind>> parse_faults(std::string_view text);

struct PlannedFault {
  FaultKind kind = FaultKind::kill;
  double victim = 0;  // in (0, 1): its place among the processes of the kind that it meets
  /// It does not wait until requests go on after the fault before it.
  bool in_recovery = false;
  Duration delay{0};  // since that fault if in_recovery, else since they went on
  Duration pause{0};  // of a stop
  bool operator==(const PlannedFault&) const = default;
};

/// The fault of this number, from 0. `kinds` is not empty.
PlannedFault planned_fault(uint64_t seed, const std::vector<FaultKind>& kinds, uint64_t number);

inline constexpr int32_t kChaosPositions = 700;
inline constexpr int32_t kChaosPositionsMin = 16;

/// The load's request of this number: prompts of 20 to 400 tokens, some with a beginning that
/// others have too, 100 to 300 new ones unless a stop string ends it, half sampled, some with two
/// choices, with penalties, with stop strings. With fewer `positions` than 700 all lengths are
/// shorter in proportion, but no prompt is of less than 9 tokens.
gateway::GenerateRequest chaos_request(uint64_t seed, uint64_t number, int32_t vocabulary_size,
                                       int32_t positions = kChaosPositions);

}  // namespace chainpump::cli
