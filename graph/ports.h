// Which ports each op has, and whether the edges between stages make sense. Pure; any thread.
#pragma once

#include "graph/graph.h"

namespace chainpump::graph {

/// Reports a cycle by naming its stages; false then.
bool check_acyclic(const std::vector<Stage>& stages, Diagnostics& out);

/// Gives every stage its ports and checks both ends of every edge, and cycles.
void assign_ports(std::vector<Stage>& stages, Diagnostics& out);

}  // namespace chainpump::graph
