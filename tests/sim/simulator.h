// A whole cluster of the pure cores in virtual time: deployments under coordinators, failure
// detectors, router, sequencers, credit ledgers, the stages' tables and replay logs, over a network
// that delays, stalls, loses and reorders, with executors that sleep, a disk that may be slow or
// full, and actors that die, hang and come back at any event. Every choice is drawn from one seed,
// and what must always be true is checked after every event:
//   credits and KV blocks are conserved; no frame is lost or run twice in one epoch of a lane;
//   every token, score and end is the one that the request gets alone, once, whatever has died
//   meanwhile; every queue is within its bound; nobody loses its blocks but to one who ranks
//   higher; no deadline is left over; tenants that all wait are served by their weights within 5 %;
//   no epoch is used twice, and nothing of an earlier one is accepted: frames, answers, calls; what
//   a coordinator asks for is due, and no lane is disturbed that no fault has touched
//   (tests/sim/deployment_check.h); a repair does no more than it must (tests/sim/repair_check.h);
//   when the faults are over every request ends within kLiveness, and nothing is left then: every
//   block, credit and slot is back, and every process is there.
// Not here: K, V and models (the tests of actors and executors), threads and time.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "graph/deployment.h"
#include "graph/failure_detector.h"
#include "tests/sim/plant.h"
#include "tests/sim/sim_clients.h"

namespace chainpump::sim {

/// After the last fault, and what it still does, is over: what was asked before that and never
/// answered is found out by its own deadline, one step of a repair after the other, and the work of
/// all requests is done.
inline constexpr Duration kWork = std::chrono::seconds(60);
inline constexpr Duration kLiveness =
    graph::FailureDetectorLimits{}.hang_max + graph::DeploymentLimits{}.greet_max +
    graph::DeploymentLimits{}.load_silence_max + graph::LaneRepairLimits{}.fence_max +
    graph::LaneRepairLimits{}.connect_max + graph::LaneRepairLimits{}.resume_max + kWork;

struct SimOptions {
  uint64_t seed = 0;
  Plant plant = Plant::none;
  std::FILE* trace = nullptr;  // where readable lines go
};

struct SimReport {
  std::string wrong;  // empty if all was well
  uint64_t trace_hash = 0;
  uint64_t num_events = 0;
  bool saturated = false;
  double unfairness = 0;  // of a saturated run: most served over least, by weight, less 1
  ClientCounts clients;
  uint64_t tokens_generated = 0;
  uint64_t prompt_tokens_hit = 0;
  uint64_t preemptions = 0;
  uint64_t positions_rebuilt = 0;
  int faults = 0;
  int repairs = 0;  // of ends, by whichever coordinator
  int moves = 0;    // that came to their end
  int changes = 0;  // of plan, likewise
  int coordinators = 0;
  uint64_t calls_lost = 0;     // or late
  uint64_t stale_refused = 0;  // frames and calls of another epoch
  Duration longest_ending{0};  // from the end of the faults to that of the last request
};

SimReport simulate(const SimOptions& options);

}  // namespace chainpump::sim
