// Threads and cores of each rank, node by node: what a stage claims is its own, the rest is shared
// evenly by those that claim nothing. Pure; any thread.
#pragma once

#include <vector>

#include "graph/graph.h"
#include "graph/placement.h"
#include "graph/plan.h"

namespace chainpump::graph {

/// Sets `num_threads` of the stages and the cores of their devices, whose homes are what placement
/// says. True if threads outnumber cores on some node: then nobody there is pinned, and nobody
/// spins. invalid_argument: a stage claims a core that its node has not, or `spin: always` has too
/// few.
Result<bool> assign_cores(const Graph& graph, const std::vector<Node>& nodes,
                          const std::vector<std::vector<size_t>>& candidates,
                          std::vector<StagePlan>& stages);

}  // namespace chainpump::graph
