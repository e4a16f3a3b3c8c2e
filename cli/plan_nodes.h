// What `chainpump plan` plans over: the nodes that have joined the service of that graph, where it
// runs on this machine; else, where the graph file names nodes, as many machines like this one;
// else this machine. One thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "graph/graph.h"
#include "graph/placement.h"
#include "transport/rpc/control_types.h"

namespace chainpump::cli {

struct PlanNodes {
  std::vector<graph::Node> nodes;
  std::string note = {};  // what they are, in a sentence; empty: this machine
};

/// Of a node as it says itself what it is.
graph::Node node_of(const transport::rpc::NodeInfo& info);

/// bad_file: the service's folder.
Result<PlanNodes> find_plan_nodes(const graph::Graph& graph);

}  // namespace chainpump::cli
