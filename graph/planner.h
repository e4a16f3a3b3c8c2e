// Graph + model + machine -> plan: cuts, cores, bytes and predicted times, and whether it fits,
// before any weight is read. Pure; any thread.
#pragma once

#include "graph/cost_model.h"
#include "graph/graph.h"
#include "graph/model_profile.h"
#include "graph/placement.h"
#include "graph/plan.h"
#include "graph/plan_overrides.h"

namespace chainpump::graph {

struct Verdict {
  bool fits = false;
  std::string node = {};  // that the figures are of: the one with the least left
  int64_t needed_bytes = 0;
  int64_t available_bytes = 0;
  int32_t largest_context_tokens = 0;  // that would fit with these weights; 0: none
};

struct PlanReport {
  Plan plan;
  Verdict verdict;
};

/// Over these nodes, of which there is one at least. The plan even where it does not fit.
/// unimplemented naming what this release cannot run; invalid_argument where graph, model and
/// overrides contradict each other.
Result<PlanReport> make_plan_report(const Graph& graph, const ModelProfile& model,
                                    const std::vector<Node>& nodes, const PlanOverrides& overrides);
/// On one machine, which has no name: unimplemented where the graph names nodes.
inline Result<PlanReport> make_plan_report(const Graph& graph, const ModelProfile& model,
                                           const MachineProfile& machine,
                                           const PlanOverrides& overrides) {
  return make_plan_report(graph, model, std::vector{Node{.name = "", .machine = machine}},
                          overrides);
}

/// The same; no_room, with the largest context that fits, where it does not.
Result<Plan> make_plan(const Graph& graph, const ModelProfile& model,
                       const std::vector<Node>& nodes, const PlanOverrides& overrides);
inline Result<Plan> make_plan(const Graph& graph, const ModelProfile& model,
                              const MachineProfile& machine, const PlanOverrides& overrides) {
  return make_plan(graph, model, std::vector{Node{.name = "", .machine = machine}}, overrides);
}

}  // namespace chainpump::graph
