// `chainpump status`: what the services of this machine and user are doing. One thread.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "gateway/service.h"

namespace chainpump::cli {

/// A connection to the service of that name or, without a name, to the only one that runs.
/// not_found: there is none; invalid_argument: there are several.
Result<std::unique_ptr<gateway::Service>> find_service(const std::string& name);

struct StatusOptions {
  std::string name;              // a service's, or empty: all
  std::string output = "table";  // or json, yaml
};

/// 0 if every service that was found is ready (gateway::Readiness); 5 if one is not; 3 if there is
/// none of that name. JSON: {"services": [{"name", "socket", "phase", "message", "ready",
/// "not_ready_because", "health": [{"lane", "state": "starting", "serving" or "away", "ready",
/// "why", "away_s" (or null), "crossed_ago_s" (or null: not since its last repair)}],
/// "coordinator_away" (why, or empty), "pid", "uptime_s", "model", "context_tokens", "requests",
/// "sequences", "max_sequences", "completed", "failed", "cancelled", "refused", "tokens",
/// "tokens_per_second", "kv": {"blocks", "block_tokens", "tokens_held"}, "version",
/// "system_fingerprint", "queues": [{"lane", "running", "waiting", "kv_blocks", "kv_blocks_free"}],
/// "stages_missing" (why the next two are empty, or empty), "stages": [...], "links": [...]}]}, the
/// last two as in `run -o json`; a service that does not answer has "name", "socket", "phase":
/// "unknown", "message", "ready" and "not_ready_because" only.
int run_status(const StatusOptions& options);

}  // namespace chainpump::cli
