#include "cli/machine.h"

#include <cpuid.h>
#include <fmt/ranges.h>
#include <stdlib.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>

#include "actors/os/affinity.h"
#include "base/thread.h"
#include "base/version.h"
#include "cli/rates_cache.h"
#include "kernels/cpu/measure.h"

namespace chainpump::cli {
namespace {

namespace cpu = kernels::cpu;
using std::filesystem::path;

constexpr size_t kSystemFileMax = 64 << 10;
constexpr int64_t kGuessedMemory = int64_t{1} << 30;
constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

std::string processor_name() {
  char name[49] = {};
  for (unsigned leaf = 0; leaf < 3; ++leaf) {
    unsigned words[4] = {};
    if (__get_cpuid(0x80000002 + leaf, &words[0], &words[1], &words[2], &words[3]) == 0) break;
    std::memcpy(name + 16 * leaf, words, 16);
  }
  return name;
}

/// The decimal number that `text` begins with, after blanks; `otherwise` if there is none ("max").
int64_t leading_number(std::string_view text, int64_t otherwise) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return otherwise;
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data() + begin, text.data() + text.size(), number);
  return error == std::errc() && number >= 0 ? number : otherwise;
}

int64_t available_memory(const path& root) {
  const auto text = read_small_file(root / "proc/meminfo", kSystemFileMax);
  if (!text) return kGuessedMemory;
  for (const std::string_view name : {"MemAvailable:", "MemTotal:"}) {
    const size_t at = text->find(name);
    const int64_t kib = at == std::string::npos
                            ? 0
                            : leading_number(std::string_view(*text).substr(at + name.size()), 0);
    if (kib > 0 && kib < kUnlimited >> 10) return kib << 10;
  }
  return kGuessedMemory;
}

/// The least limit from `group` (as /proc/self/cgroup names it) up to the root of `hierarchy`. A
/// container often sees its own group as the root while the file names the outer path, so missing
/// folders are passed over.
int64_t group_limit(const path& hierarchy, const path& group, const char* file) {
  int64_t least = kUnlimited;
  path folder = group.relative_path();
  while (true) {
    if (const auto text = read_small_file(hierarchy / folder / file, 64))
      least = std::min(least, leading_number(*text, kUnlimited));
    if (folder.empty()) return least;
    folder = folder.parent_path();
  }
}

int64_t control_group_memory(const path& root) {
  const auto text = read_small_file(root / "proc/self/cgroup", kSystemFileMax);
  int64_t least = kUnlimited;
  std::string_view rest = text ? std::string_view(*text) : std::string_view();
  while (!rest.empty()) {  // "ID:CONTROLLERS:PATH"; v2 has id 0 and no controllers
    const size_t newline = rest.find('\n');
    const std::string_view line = rest.substr(0, newline);
    rest.remove_prefix(newline == std::string_view::npos ? rest.size() : newline + 1);
    const size_t first = line.find(':');
    const size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const path group(line.substr(second + 1));
    if (std::count(group.begin(), group.end(), "..") > 0) continue;
    const path base = root / "sys/fs/cgroup";
    if (controllers.empty())
      least = std::min(least, group_limit(base, group, "memory.max"));
    else if (fmt::format(",{},", controllers).find(",memory,") != std::string::npos)
      least = std::min(least, group_limit(base / "memory", group, "memory.limit_in_bytes"));
  }
  return least;
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

MachineOptions machine_options_of_environment() {
  MachineOptions options;
  options.cache_folder = user_cache_folder();
  const char* const forced = getenv("CHAINPUMP_ISA");
  const auto isa = cpu::choose_isa(forced != nullptr ? forced : "");
  options.isa = isa.ok() ? *isa : cpu::available_isas().back();
  return options;
}

int64_t usable_memory_bytes(const path& root) {
  return std::min(available_memory(root), control_group_memory(root));
}

graph::MachineProfile machine_profile(const MachineOptions& options) {
  graph::MachineProfile machine;
  machine.cores = os::usable_cores();
  machine.memory_bytes = usable_memory_bytes();
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
