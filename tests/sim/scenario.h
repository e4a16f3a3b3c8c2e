// What is drawn for a run before it begins: the shape of the cluster, how its network and its
// executors behave, how much load comes. Small numbers, so that whatever is bounded gets full.
// Every third or so is a saturated run: one lane, nothing goes wrong, three tenants always wait; it
// is there to measure fairness. Plain data.
#pragma once

#include <vector>

#include "base/kv_layout.h"
#include "graph/sequencer.h"
#include "tests/sim/virtual_time.h"

namespace chainpump::sim {

struct Scenario {
  bool saturated = false;
  int num_lanes = 1;
  int num_stages = 1;
  bool last_rank_shared = false;  // by both lanes
  std::vector<graph::SequencerOptions> lanes;
  int32_t kv_blocks_per_lane = 0;      // ids of lane i begin at i times this
  int32_t credits = 1;                 // of an edge; the return edge has at least
                                       // max_microbatches
  graph::StepCost::Coefficients cost;  // the true one, of the mean rank
  Duration delay{0};                   // of a link
  Duration jitter{0};
  int stall_in = 0;  // one frame in so many; 0: none
  Duration stall_max{0};
  int num_closes = 0;      // links that close during the run, and end their lane
  int num_deaths = 0;      // of ranks; one of a first stage ends its lane
  int32_t log_blocks = 0;  // that each stage logs what it sent for, at most
  int num_requests = 0;
  Duration arrivals{0};  // they come within this
  int cancel_in = 0;     // one request in so many; 0: none

  static Scenario draw(Random& random);
};

inline constexpr TokenId kVocabulary = 40;
inline constexpr int32_t kBlockTokens = kKvBlockTokens;
inline constexpr int32_t kContext = 8 * kBlockTokens;

}  // namespace chainpump::sim
