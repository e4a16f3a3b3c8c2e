// The flags of every verb that plans a deployment. One thread.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "cli/deploy.h"

namespace chainpump::cli {

struct DeployFlags {
  DeployOptions options;
  std::string activations;
  std::string transport;
  std::string spin;
  std::string kv_type;
  std::string service = "auto";
};

/// Of the plan alone; `flags` must outlive the parsing.
void add_plan_flags(CLI::App& verb, DeployFlags& flags);
/// With those of where it runs.
void add_deploy_flags(CLI::App& verb, DeployFlags& flags);
/// What was given.
DeployOptions deploy_options(const DeployFlags& flags);

}  // namespace chainpump::cli
