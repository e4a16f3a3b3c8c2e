#include "graph/placement.h"

#include <algorithm>

#include "base/check.h"

namespace chainpump::graph {
namespace {

/// What a node can compute, for shares of a chain: products at the rate of its cores.
double capacity(const Node& node) {
  const double rate = std::max(node.machine.int8_ops_per_s, node.machine.f32_ops_per_s);
  return std::max<double>(1, static_cast<double>(node.machine.cores.size())) * std::max(1.0, rate);
}

/// The node in whose share the stage's middle lies.
size_t share_of(size_t stage, size_t num_stages, const std::vector<Node>& nodes) {
  double all = 0;
  for (const Node& node : nodes) all += capacity(node);
  const double middle = (static_cast<double>(stage) + 0.5) / static_cast<double>(num_stages) * all;
  double until = 0;
  for (size_t i = 0; i < nodes.size(); ++i) {
    until += capacity(nodes[i]);
    if (middle < until) return i;
  }
  return nodes.size() - 1;
}

}  // namespace

bool answers_to(const Node& node, const std::string& name_or_label) {
  return node.name == name_or_label ||
         std::find(node.labels.begin(), node.labels.end(), name_or_label) != node.labels.end();
}

std::vector<std::string> missing_nodes(const Graph& graph, const std::vector<Node>& nodes) {
  std::vector<std::string> missing;
  for (const Stage& stage : graph.stages)
    for (const std::string& wanted : stage.nodes)
      if (std::none_of(nodes.begin(), nodes.end(),
                       [&](const Node& node) { return answers_to(node, wanted); }) &&
          std::find(missing.begin(), missing.end(), wanted) == missing.end())
        missing.push_back(wanted);
  return missing;
}

Result<std::vector<std::vector<size_t>>> candidates(const Graph& graph,
                                                    const std::vector<Node>& nodes) {
  CHECK(!nodes.empty());
  std::vector<std::vector<size_t>> all;
  for (size_t s = 0; s < graph.stages.size(); ++s) {
    const Stage& stage = graph.stages[s];
    std::vector<size_t>& own = all.emplace_back();
    if (stage.nodes.empty()) {
      const size_t first = share_of(s, graph.stages.size(), nodes);
      for (size_t i = 0; i < nodes.size(); ++i) own.push_back((first + i) % nodes.size());
      continue;
    }
    for (const std::string& wanted : stage.nodes)
      for (size_t i = 0; i < nodes.size(); ++i)
        if (answers_to(nodes[i], wanted) && std::find(own.begin(), own.end(), i) == own.end())
          own.push_back(i);
    if (own.empty())
      return make_error(ErrorCode::not_found, "stage '{}' ({}:{}): no node is named or labelled {}",
                        stage.name, stage.at.line, stage.at.column, fmt::join(stage.nodes, " or "));
  }
  return all;
}

std::vector<NodePlan> node_plans(const std::vector<Node>& nodes) {
  std::vector<NodePlan> plans;
  for (const Node& node : nodes)
    plans.push_back({node.name, std::max(1, static_cast<int32_t>(node.machine.cores.size()))});
  return plans;
}

}  // namespace chainpump::graph
