// What of the graph file's language this release can run: checked before anything is planned. Pure;
// any thread. Not here: whether graph, model and machine fit together (planner.h).
#pragma once

#include "base/result.h"
#include "graph/graph.h"

namespace chainpump::graph {

/// unimplemented naming the stage and what of it cannot be run yet. invalid_argument where the
/// stages' replicas make no lanes: there are as many lanes as the most replicas of any stage, and
/// every other count must divide that (plan.h); the message names the nearest counts that do.
Status check_runnable(const Graph& graph);

}  // namespace chainpump::graph
