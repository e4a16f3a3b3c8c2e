// A whole cluster of the pure cores in virtual time: router, sequencers, credit ledgers and the
// stages' tables, over a network that delays, stalls and closes, with executors that sleep. Every
// choice is drawn from one seed, and what must always be true is checked after every event:
//   credits and KV blocks are conserved; no frame is lost or run twice in one incarnation of a
//   lane; every token, score and end is the one that the request gets alone; every queue is within
//   its bound; nobody loses its blocks but to one who ranks higher; no deadline is left over;
//   tenants that all wait are served by their weights within 5 %; every request ends, and nothing
//   is left then.
// Not here: K, V and models (the tests of actors and executors), threads and time.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "tests/sim/plant.h"
#include "tests/sim/sim_clients.h"

namespace chainpump::sim {

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
  int deaths = 0;  // of ranks whose lanes went on
  uint64_t positions_rebuilt = 0;
};

SimReport simulate(const SimOptions& options);

}  // namespace chainpump::sim
