// The flags of `serve` that make it the head of a cluster. One thread.
#pragma once

#include <CLI/CLI.hpp>

#include "cli/cluster.h"

namespace chainpump::cli {

/// `options` must outlive the parsing.
void add_cluster_flags(CLI::App& verb, ClusterOptions& options);

}  // namespace chainpump::cli
