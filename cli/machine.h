// What the planner must know of this machine: cores and memory that this process may use, and how
// fast weights are read and multiplied. The rates are measured once (a fraction of a second) and
// kept in a cache file, because they are on the way of every `run`. Call from one thread; it makes
// helper threads while it measures and has joined them when it returns.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "base/result.h"
#include "graph/cost_model.h"
#include "kernels/cpu/isa.h"

namespace chainpump::cli {

struct MachineOptions {
  std::filesystem::path cache_folder;  // empty: measure each time, keep nothing
  kernels::cpu::Isa isa = kernels::cpu::Isa::reference;
};

/// $XDG_CACHE_HOME/chainpump, else ~/.cache/chainpump, else none.
std::filesystem::path user_cache_folder();

/// Where ranks keep repacked weights: user_cache_folder()/panels, or nowhere if that is none or
/// CHAINPUMP_WEIGHT_CACHE is `off`. invalid_argument if that is neither `on` nor `off`.
Result<std::filesystem::path> panel_cache_folder();

/// Where weights are kept that ranks fetch from other nodes: user_cache_folder()/weights, or
/// nowhere.
std::filesystem::path weights_folder();

/// The user's cache folder; the instruction set that CHAINPUMP_ISA names, else the best there is (a
/// name that cannot be used is refused by the ranks, in words; here it is ignored).
MachineOptions machine_options_of_environment();

/// Never fails: what the machine does not tell is guessed low (one core, 1 GiB), a cache file that
/// cannot be used is measured anew, and one that cannot be written is done without.
graph::MachineProfile machine_profile(const MachineOptions& options);
graph::MachineProfile machine_profile();

}  // namespace chainpump::cli
