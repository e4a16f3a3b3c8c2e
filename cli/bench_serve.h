// `chainpump bench serve`: an open-loop load on a service, and what became of it.
#pragma once

#include <optional>
#include <string>

#include "cli/deploy.h"
#include "cli/load.h"
#include "cli/serve_figures.h"

namespace chainpump::cli {

struct BenchServeOptions {
  DeployOptions deploy;
  double requests_per_second = 2;
  size_t num_requests = 100;
  std::string mix = "short";
  uint64_t seed = 1;
  ServiceLevel level;
  bool json = false;
};

/// The exit status: 0 if the load was driven to its end, whatever was refused; else as in
/// exit_status.h; 128 + N after signal N, with the figures so far.
int run_bench_serve(const BenchServeOptions& options);

}  // namespace chainpump::cli
