#include "cli/chaos_flags.h"

#include <CLI/CLI.hpp>

#include "cli/usage.h"

namespace chainpump::cli {
namespace {

std::string names_of_faults() {
  std::string names;
  for (const FaultEntry& entry : fault_entries()) {
    if (!names.empty()) names += ", ";
    names += entry.name;
  }
  return names;
}

}  // namespace

void add_chaos(CLI::App& app, ChaosOptions& options, std::string& output) {
  CLI::App& verb = *app.add_subcommand("chaos", "faults under load; every answer must be right");
  add_plan_flags(verb, options.deploy);
  verb.add_option("--kills", options.num_faults,
                  "how many faults, of all kinds; 30, or any in --duration")
      ->check(CLI::Range(1, 1000000));
  verb.add_option("--seed", options.seed, "the same seed is the same load and the same faults")
      ->check(CLI::Validator(is_seed, ""))
      ->capture_default_str();
  verb.add_option("--faults", options.faults,
                  "their kinds, with commas between: " + names_of_faults())
      ->capture_default_str();
  verb.add_option("--duration", options.duration_s,
                  "seconds after which no fault is begun any more")
      ->check(CLI::PositiveNumber);
  verb.add_option("--positions", options.positions,
                  "tokens of the longest request; others are in proportion")
      ->check(CLI::Range(kChaosPositionsMin, kChaosPositions))
      ->capture_default_str();
  verb.add_option("--state", options.state_path, "a file to go on from, if the run was cut short");
  verb.add_option("-o", output, "table or json")->check(CLI::IsMember({"table", "json"}));
}

}  // namespace chainpump::cli
