#include "cli/machine.h"

#include <cpuid.h>
#include <fmt/ranges.h>
#include <stdlib.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>

#include "actors/os/affinity.h"
#include "actors/os/memory.h"
#include "base/thread.h"
#include "base/version.h"
#include "cli/rates_cache.h"
#include "kernels/cpu/measure.h"

namespace chainpump::cli {
namespace {

namespace cpu = kernels::cpu;
using std::filesystem::path;

constexpr size_t kSystemFileMax = 64 << 10;

std::string processor_name() {
  char name[49] = {};
  for (unsigned leaf = 0; leaf < 3; ++leaf) {
    unsigned words[4] = {};
    if (__get_cpuid(0x80000002 + leaf, &words[0], &words[1], &words[2], &words[3]) == 0) break;
    std::memcpy(name + 16 * leaf, words, 16);
  }
  return name;
}

constexpr double kGuessedRate = 1e9;  // bytes or operations per second

/// Read rates at 1, 2, 4, ... and all threads; those between lie on a line.
Status measure_rates(cpu::Isa isa, graph::MachineProfile& machine) {
  const size_t num_cores = machine.cores.size();
  machine.read_bytes_per_s.assign(num_cores, 0);
  size_t before = 0;
  for (size_t threads = 1; before < num_cores; threads = std::min(num_cores, threads * 2)) {
    ASSIGN_OR_RETURN(
        cpu::Team team,
        cpu::Team::create({.num_threads = static_cast<int>(threads),
                           .cores = {machine.cores.begin(),
                                     machine.cores.begin() + static_cast<ptrdiff_t>(threads)}}));
    const cpu::MachineRates rates = cpu::measure_machine(isa, team);
    const double from = before == 0 ? 0 : machine.read_bytes_per_s[before - 1];
    const double step =
        (rates.read_bytes_per_second - from) / static_cast<double>(threads - before);
    for (size_t t = before + 1; t <= threads; ++t)
      machine.read_bytes_per_s[t - 1] = from + step * static_cast<double>(t - before);
    // Of one core while all work: the planner gives every core to some stage.
    machine.int8_ops_per_s = rates.int8_ops_per_second / static_cast<double>(threads);
    machine.f32_ops_per_s = rates.f32_ops_per_second / static_cast<double>(threads);
    machine.bf16_ops_per_s = rates.bf16_ops_per_second / static_cast<double>(threads);
    before = threads;
  }
  return ok_status();
}

/// For a machine that refuses us a thread now: its ranks will be refused theirs, and say so.
void guess_rates(graph::MachineProfile& machine) {
  machine.read_bytes_per_s.assign(machine.cores.size(), kGuessedRate);
  machine.int8_ops_per_s = machine.f32_ops_per_s = machine.bf16_ops_per_s = kGuessedRate;
}

}  // namespace

path user_cache_folder() {
  const char* const cache = getenv("XDG_CACHE_HOME");
  const char* const home = getenv("HOME");
  // A relative path there counts as unset, says the XDG base directory specification.
  if (cache != nullptr && cache[0] == '/') return path(cache) / "chainpump";
  if (home != nullptr && home[0] == '/') return path(home) / ".cache" / "chainpump";
  return {};
}

Result<path> panel_cache_folder() {
  const char* const given = getenv("CHAINPUMP_WEIGHT_CACHE");
  const std::string_view choice = given == nullptr ? "on" : given;
  if (choice != "on" && choice != "off" && !choice.empty())
    return make_error(ErrorCode::invalid_argument, "CHAINPUMP_WEIGHT_CACHE={}: on or off", choice);
  const path folder = user_cache_folder();
  return choice == "off" || folder.empty() ? path() : folder / "panels";
}

path weights_folder() {
  const path folder = user_cache_folder();
  return folder.empty() ? path() : folder / "weights";
}

MachineOptions machine_options_of_environment() {
  MachineOptions options;
  options.cache_folder = user_cache_folder();
  const char* const forced = getenv("CHAINPUMP_ISA");
  const auto isa = cpu::choose_isa(forced != nullptr ? forced : "");
  options.isa = isa.ok() ? *isa : cpu::available_isas().back();
  return options;
}

graph::MachineProfile machine_profile(const MachineOptions& options) {
  graph::MachineProfile machine;
  machine.cores = os::usable_cores();
  machine.memory_bytes = os::usable_memory_bytes();
  const RatesKey key = {
      .text = fmt::format("{}; cores {}; {}; chainpump {}", processor_name(),
                          fmt::join(machine.cores, ","), to_string(options.isa), release()),
      .num_cores = machine.cores.size(),
      .file_name = fmt::format("rates-{}-{}.json", to_string(options.isa), machine.cores.size())};
  if (!read_rates(options.cache_folder, key, machine)) {
    // A team pins the thread that makes it; ours, and the ranks it forks, must stay free.
    Status measured = ok_status();
    Result<std::thread> thread = start_thread(
        "the thread that measures", [&] { measured = measure_rates(options.isa, machine); });
    if (thread.ok()) thread->join();
    if (thread.ok() && measured.ok())
      write_rates(options.cache_folder, key, machine);
    else
      guess_rates(machine);
  }
  return machine;
}

graph::MachineProfile machine_profile() {
  return machine_profile(machine_options_of_environment());
}

}  // namespace chainpump::cli
