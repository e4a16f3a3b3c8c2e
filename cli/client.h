// Whom `run`, `score` and `batch` are clients of: a service of the same deployment, if one runs on
// this machine, else one of their own, in this process. One thread.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "cli/deploy.h"
#include "gateway/service.h"

namespace chainpump::cli {

/// Says on standard error if it is another process's, or why a service that runs is not used.
Result<std::unique_ptr<gateway::Service>> open_service(const DeployOptions& options);

struct OpenService {
  std::unique_ptr<gateway::Service> service;
  std::string socket;  // where more connections are to be had; empty: it is in this process
};
/// The same, saying where it is.
Result<OpenService> open_named_service(const DeployOptions& options);

/// One more connection to the service at `socket`. What it hands out outlives the gateway: its
/// successor goes on with it (gateway/resuming_service.h).
Result<std::unique_ptr<gateway::Service>> connect_to_service(const std::string& socket);

/// What keeps a service from being what the options ask for, or nothing. Pure but for a look at the
/// model files.
std::optional<std::string> conflict(const gateway::DeploymentInfo& service,
                                    const gateway::DeploymentInfo& asked,
                                    const graph::PlanOverrides& overrides);

}  // namespace chainpump::cli
