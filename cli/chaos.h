// `chainpump chaos`: kills ranks of a service of its own under load, and holds every answer against
// the calm one. One thread, the command's.
#pragma once

#include <optional>
#include <string>

#include "cli/chaos_schedule.h"
#include "cli/deploy_flags.h"

namespace chainpump::cli {

struct ChaosOptions {
  DeployFlags deploy;
  std::optional<uint64_t> num_faults;
  uint64_t seed = 1;
  std::string faults = "kill";
  std::optional<double> duration_s;
  int32_t positions = kChaosPositions;
  std::string state_path;
  bool json = false;
};

/// The exit status: 0 if every answer was the calm one; 5 if not, or if the service failed; else as
/// in exit_status.h; 128 + N after signal N, with the report so far.
int run_chaos(const ChaosOptions& options);

}  // namespace chainpump::cli
