// Which node each rank and each standby of a graph has its home on. A node is a machine: the one
// that plans, and those that have joined it. Pure; any thread.
//
//   `nodes` of a stage   its candidates                               replica j, standby k
//   [a, gpu]             who has the name or label a, then gpu, in    candidate j, candidate
//                        the order of names                           replicas + k, and round
//   not given            all nodes, from the stage's share on: the    likewise
//                        chain is laid over them in order, each with
//                        as much of it as it computes of them all
//
// A process is started on its home, else on the first of its candidates that is there and has room.
#pragma once

#include <string>
#include <vector>

#include "graph/cost_model.h"
#include "graph/graph.h"
#include "graph/plan.h"

namespace chainpump::graph {

struct Node {
  std::string name;  // empty: of the only machine there is
  std::vector<std::string> labels = {};
  MachineProfile machine = {};
};

/// Whether a stage's `nodes` may mean this one.
bool answers_to(const Node& node, const std::string& name_or_label);

/// The names and labels of the graph's `nodes` that nobody has, without repetitions.
std::vector<std::string> missing_nodes(const Graph& graph, const std::vector<Node>& nodes);

/// Of each stage, indices into `nodes`: all that its ranks may be on, the home of replica 0 first.
/// not_found: a stage has none.
Result<std::vector<std::vector<size_t>>> candidates(const Graph& graph,
                                                    const std::vector<Node>& nodes);

/// As a plan names them.
std::vector<NodePlan> node_plans(const std::vector<Node>& nodes);

}  // namespace chainpump::graph
