// `chainpump drain`: has a rank of a service moved to another process. One thread.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/result.h"
#include "graph/plan.h"

namespace chainpump::cli {

struct DrainOptions {
  std::string rank;     // its number, as `status` counts them from 0, or the name of its stage
  std::string service;  // its name; empty: the only one that runs
};

void add_drain(CLI::App& app, DrainOptions& options);

/// Which rank is meant. not_found, or invalid_argument if the stage has several.
Result<RankId> find_rank(const graph::Plan& plan, const std::string& name);

/// 0 when the rank's place is another process's and its requests go on there; else the exit status
/// of the error: the rank has kept its place.
int run_drain(const DrainOptions& options);

}  // namespace chainpump::cli
