// The measured rates of a machine, kept in a small file between runs. Whatever stands in the file
// is checked; a file that is not what we wrote for this machine is as good as none. Any thread.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "graph/cost_model.h"

namespace chainpump::cli {

/// What a file must be for: processor, cores, instruction set, release.
struct RatesKey {
  std::string text;
  size_t num_cores = 1;
  std::string file_name;
};

/// Sets the rates of `machine`; false if the file does not hold them for `key`. Reads at most
/// 64 KiB, of a regular file only.
bool read_rates(const std::filesystem::path& folder, const RatesKey& key,
                graph::MachineProfile& machine);

/// Replaces the file whole, so that no reader sees half of one. Makes the folder. A failure leaves
/// the old file or none: then the next run measures again.
void write_rates(const std::filesystem::path& folder, const RatesKey& key,
                 const graph::MachineProfile& machine);

}  // namespace chainpump::cli
