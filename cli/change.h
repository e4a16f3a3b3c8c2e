// `chainpump diff`, `apply` and `scale`: what it takes to have a service go on by another graph
// while its requests run, and having it do so. One thread.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "cli/deploy_flags.h"

namespace chainpump::cli {

struct ChangeOptions {
  DeployFlags deploy;   // the new graph; of diff and apply
  std::string scale;    // STAGE=N; of scale
  std::string service;  // its name; of scale, empty: the only one
  std::string output;   // table, json or yaml; of diff
};

void add_change_verbs(CLI::App& app, ChangeOptions& options, std::string& output);

/// 0 if the service can go on by it, and then what that takes is on standard output; JSON:
/// {"service", "keys": [{"key", "before", "after", "apply"}], "in_place", "ranks": [{"rank",
/// "name", "layers": [begin, end), "lanes", "copied_from"}], "lanes": [before, after],
/// "needed_bytes", "available_bytes", "possible", "why_not"}. Else the status of the reason, which
/// is on standard error, too.
int run_diff(const ChangeOptions& options);
/// 0 once every lane serves by the new graph; else the exit status of the error: the service goes
/// on as it was.
int run_apply(const ChangeOptions& options);
int run_scale(const ChangeOptions& options);

}  // namespace chainpump::cli
