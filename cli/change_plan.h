// What a service is to go on by: its graph and plan in force, and those that are wanted. Reads the
// service's folder and the model file; asks nobody. One thread.
#pragma once

#include <string>

#include "cli/deploy.h"
#include "graph/graph.h"
#include "graph/plan.h"
#include "transport/rpc/control_types.h"

namespace chainpump::cli {

struct WantedChange {
  std::string service;
  std::string folder;
  graph::Graph graph_now;
  graph::Graph graph_next;
  graph::Plan plan_now;
  graph::Plan plan_next;
  transport::rpc::ServiceSpec spec;  // what its coordinator is to be told
  int64_t needed_bytes = 0;          // beside what the service takes
  int64_t available_bytes = 0;
  Status may = ok_status();  // why not, as far as can be seen from here
};

/// By the graph file that the options name. not_found: there is no such service; errors of files
/// and of planning as prepare().
Result<WantedChange> wanted_by(const DeployOptions& options);

/// With so many replicas of a stage, "STAGE=N", and all else as it is. invalid_argument; not_found:
/// no such stage.
Result<WantedChange> scaled(const std::string& service, const std::string& stage_and_count);

}  // namespace chainpump::cli
