// chainpump-sim --seed N [--count K] [--trace] [--plant NAME]: replays seed N (and the K - 1 after
// it), says what was wrong, and with --trace prints everything that happened.
#include <fmt/format.h>

#include <cstdlib>
#include <optional>
#include <string_view>

#include "tests/sim/simulator.h"

namespace {

using chainpump::sim::SimOptions;
using chainpump::sim::SimReport;

int usage() {
  fmt::print(stderr, "usage: chainpump-sim --seed N [--count K] [--trace] [--plant NAME]\nplants:");
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
  fmt::print(
      "seed {}: {}; trace {:016x}, {} events, {} requests ({} done, {} cancelled, {} late, {} "
      "refused, {} disconnected), {} tokens, {} hit, {} preemptions",
      seed, report.wrong.empty() ? "well" : "WRONG: " + report.wrong, report.trace_hash,
      report.num_events, report.clients.asked, report.clients.completed, report.clients.cancelled,
      report.clients.late, report.clients.overloaded, report.clients.disconnected,
      report.tokens_generated, report.prompt_tokens_hit, report.preemptions);
  if (report.saturated) fmt::print(", unfairness {:.4f}", report.unfairness);
  fmt::print("\n");
}

}  // namespace

int main(int argc, char** argv) {
  SimOptions options;
  std::optional<uint64_t> seed;
  uint64_t count = 1;
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
    } else if (flag == "--plant" && chainpump::sim::find_plant(argv[i])) {
      options.plant = *chainpump::sim::find_plant(argv[i]);
    } else {
      return usage();
    }
  }
  if (!seed) return usage();
  bool well = true;
  for (uint64_t i = 0; i < count; ++i) {
    options.seed = *seed + i;
    const SimReport report = simulate(options);
    print(options.seed, report);
    well = well && report.wrong.empty();
  }
  return well ? 0 : 1;
}
