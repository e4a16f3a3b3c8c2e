// chainpump-sim --seed N [--count K] [--trace] [--plant NAME] [--state FILE]: replays seed N (and
// the K - 1 after it), says what was wrong, and with --trace prints everything that happened. With
// --state a run of many seeds goes on after the last one that was well, however it ended, tells of
// each thousand, and stops at the first finding.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

#include "tests/sim/simulator.h"

namespace {

using chainpump::sim::SimOptions;
using chainpump::sim::SimReport;

int usage() {
  fmt::print(
      stderr,
      "usage: chainpump-sim --seed N [--count K] [--trace] [--plant NAME] [--state FILE]\nplants:");
  for (const auto& [plant, name] : chainpump::sim::kPlants) fmt::print(stderr, " {}", name);
  fmt::print(stderr, "\n");
  return 2;
}

std::optional<uint64_t> number(const char* text) {
  char* end = nullptr;
  const uint64_t value = std::strtoull(text, &end, 10);
  if (end == text || *end != '\0') return std::nullopt;
  return value;
}

void print(uint64_t seed, const SimReport& report) {
  const chainpump::sim::ClientCounts& clients = report.clients;
  fmt::print(
      "seed {}: {}; trace {:016x}, {} events, {} faults, {} repairs, {} moves, {} changes, {} "
      "coordinators, {} "
      "calls "
      "lost, "
      "{} stale refused, {} requests ({} done, {} cancelled, {} late, {} refused, {} failed, {} "
      "again), {} tokens, {} hit, {} preemptions, {} rebuilt, the last ended after {:.3f} s",
      seed, report.wrong.empty() ? "well" : "WRONG: " + report.wrong, report.trace_hash,
      report.num_events, report.faults, report.repairs, report.moves, report.changes,
      report.coordinators, report.calls_lost, report.stale_refused, clients.asked,
      clients.completed, clients.cancelled, clients.late, clients.overloaded, clients.failed,
      clients.again, report.tokens_generated, report.prompt_tokens_hit, report.preemptions,
      report.positions_rebuilt, chainpump::to_seconds(report.longest_ending));
  if (report.saturated) fmt::print(", unfairness {:.4f}", report.unfairness);
  fmt::print("\n");
}

uint64_t read_state(const std::string& path, uint64_t first) {
  std::ifstream file(path);
  uint64_t next = first;
  return file >> next ? std::max(next, first) : first;
}

/// True if all were well.
bool run_on(SimOptions options, uint64_t first, uint64_t count, const std::string& state) {
  for (uint64_t seed = read_state(state, first); seed < first + count; ++seed) {
    options.seed = seed;
    const SimReport report = simulate(options);
    if (!report.wrong.empty()) print(seed, report);
    if (!report.wrong.empty()) return false;
    std::ofstream(state) << seed + 1 << '\n';
    if ((seed + 1) % 1000 != 0) continue;
    fmt::print("{} of {} seeds were well\n", seed + 1 - first, count);
    std::fflush(stdout);
  }
  fmt::print("{} seeds, nothing found\n", count);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  SimOptions options;
  std::optional<uint64_t> seed;
  uint64_t count = 1;
  std::string state;
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--trace") {
      options.trace = stdout;
      continue;
    }
    if (++i == argc) return usage();
    const std::optional<uint64_t> value = number(argv[i]);
    if (flag == "--seed" && value) {
      seed = value;
    } else if (flag == "--count" && value) {
      count = *value;
    } else if (flag == "--state") {
      state = argv[i];
    } else if (flag == "--plant" && chainpump::sim::find_plant(argv[i])) {
      options.plant = *chainpump::sim::find_plant(argv[i]);
    } else {
      return usage();
    }
  }
  if (!seed) return usage();
  if (!state.empty()) return run_on(options, *seed, count, state) ? 0 : 1;
  bool well = true;
  for (uint64_t i = 0; i < count; ++i) {
    options.seed = *seed + i;
    const SimReport report = simulate(options);
    print(options.seed, report);
    well = well && report.wrong.empty();
  }
  return well ? 0 : 1;
}
