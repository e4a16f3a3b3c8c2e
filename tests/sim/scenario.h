// What is drawn for a run before it begins: the shape of the cluster, how its network and its
// executors behave, how much load comes, and which faults. Small numbers, so that whatever is
// bounded gets full.
//
// Faults come one after the other, each so many events after the one before, few of them most
// often: so two may come at once, or the second while the first is being repaired. They begin when
// the deployment serves.
//
// Every eighth or so is a saturated run: one lane, nothing goes wrong, three tenants always wait;
// it is there to measure fairness. Plain data.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "base/kv_layout.h"
#include "graph/plan.h"
#include "graph/sequencer.h"
#include "tests/sim/virtual_time.h"

namespace chainpump::sim {

enum class FaultKind : uint8_t {
  rank_dies,         // standbys, too
  two_ranks_die,     // at once
  rank_stops,        // and goes on after `lasts`, if nobody has ended it: a zombie then, or none
  rank_stuck,        // the same, but it answers that its count stands still
  link_breaks,       // of some lane
  coordinator_dies,  // the next one comes after `lasts`
  gateway_dies,      // the next one comes after `lasts`
  agent_dies,        // with all its ranks, and the coordinator
  store_slow,        // what is written next takes `lasts`
  store_fails,       // what is written next is not
  kill_slow,         // whom the agent is to kill next lives for `lasts` yet
  rank_moves,        // somebody asks for that: a rank's place is to be another process's
  plan_changes,      // likewise: all ranks are to be others
};
inline constexpr std::array<std::string_view, 13> kFaultNames = {
    "a rank dies",         "two ranks die",        "a rank stops",          "a rank is stuck",
    "a link breaks",       "the coordinator dies", "the gateway dies",      "the agent dies",
    "the store gets slow", "the store fails",      "the next kill is slow", "a rank moves",
    "the plan changes"};

struct Fault {
  FaultKind kind = FaultKind::rank_dies;
  int after_events = 0;
  Duration lasts{0};
};

struct Scenario {
  bool saturated = false;
  graph::Plan plan;  // stages, replicas, standbys, the bound of restarts
  std::vector<graph::SequencerOptions> lanes;
  int32_t kv_blocks_per_lane = 0;      // ids of lane i begin at i times this
  int32_t credits = 1;                 // of an edge; the return edge has at least max_microbatches
  graph::StepCost::Coefficients cost;  // the true one, of the mean rank
  Duration delay{0};                   // of a link
  Duration jitter{0};
  int stall_in = 0;  // one frame in so many; 0: none
  Duration stall_max{0};
  int32_t log_blocks = 0;  // that each stage logs what it sent for, at most
  int num_requests = 0;
  int num_at_first = 0;  // come within `arrivals`; another whenever one has ended
  Duration arrivals{0};
  int cancel_in = 0;  // one request in so many; 0: none

  std::vector<Fault> faults;
  Duration call_delay{0};  // of control messages, one way
  int call_fault_in = 0;  // one call in so many is lost, or its answer is, or that is late; 0: none
  Duration start_delay{0};  // of a process
  Duration load_delay{0};

  int num_stages() const { return static_cast<int>(plan.stages.size()); }
  int num_lanes() const { return static_cast<int>(lanes.size()); }
  static Scenario draw(Random& random);
};

inline constexpr TokenId kVocabulary = 40;
inline constexpr int32_t kBlockTokens = kKvBlockTokens;
inline constexpr int32_t kContext = 8 * kBlockTokens;

}  // namespace chainpump::sim
