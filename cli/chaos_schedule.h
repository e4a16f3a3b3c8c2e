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
#include "transport/armed_fault.h"

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
  agent,
  kill_next,
  kill_standby,
  coordinator_kill,
  gateway_kill,
};

/// Whom a pair takes along at the same instant.
enum class Second : uint8_t {
  nobody,
  any_rank,
  first_rank,  // a lane's, with its sequencer
  standby,     // of the stage of the first victim
  next_rank,   // of the stage after it, which it sends to
};

/// One kind of faults. A new one that ends or stops a process is a line in the table.
struct FaultEntry {
  FaultKind kind;
  std::string_view name;  // as users say it
  std::string_view what;  // it does
  ServiceRole victim = ServiceRole::rank;
  Second second = Second::nobody;
  /// Of a rank at work, which does it to itself; nothing: a signal does it.
  transport::FaultOrder::Kind order = transport::FaultOrder::Kind::nothing;
  bool is_stop = false;  // for a while; otherwise the signal is the process's end
  Duration apart{
      0};  // at least, two that end such a process: as often as a service makes up for it
  bool ends_process() const { return !is_stop && order == transport::FaultOrder::Kind::nothing; }
};
std::span<const FaultEntry> fault_entries();
const FaultEntry& entry_of(FaultKind kind);

/// "kill,stop,gateway+kill", each once, in the table's order. invalid_argument: there is no such
/// fault.
Result<std::vector<FaultKind>> parse_faults(std::string_view text);

struct PlannedFault {
  FaultKind kind = FaultKind::kill;
  double victim = 0;  // in (0, 1): its place among the processes of the kind that it meets
  double second = 0;  // likewise
  /// It does not wait until requests go on after the fault before it.
  bool in_recovery = false;
  Duration delay{0};  // since that fault if in_recovery, else since they went on
  Duration pause{0};  // of a stop
  /// What a rank is told to do to itself: of half the kills to die at a named point.
  transport::FaultOrder order;
  bool is_at_point() const { return order.kind == transport::FaultOrder::Kind::death; }
  bool operator==(const PlannedFault&) const = default;
};

/// Points that a rank passes while its lane is repaired, for which another one has to die.
bool is_of_repair(transport::FaultPoint point);

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
