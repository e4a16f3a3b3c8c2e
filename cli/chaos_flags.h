// The flags of `chainpump chaos`. One thread.
#pragma once

#include <CLI/App.hpp>
#include <string>

#include "cli/chaos.h"

namespace chainpump::cli {

/// Both must outlive the parsing.
void add_chaos(CLI::App& app, ChaosOptions& options, std::string& output);

}  // namespace chainpump::cli
