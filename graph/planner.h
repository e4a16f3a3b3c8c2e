// Graph + model + machine -> plan: cuts, cores, bytes and predicted times, and whether it fits,
// before any weight is read. Pure; any thread.
#pragma once

#include "graph/cost_model.h"
#include "graph/graph.h"
#include "graph/model_profile.h"
#include "graph/plan.h"
#include "graph/plan_overrides.h"

namespace chainpump::graph {

struct Verdict {
  bool fits = false;
  int64_t needed_bytes = 0;
  int64_t available_bytes = 0;
  int32_t largest_context_tokens = 0;  // that would fit with these weights; 0: none
};

struct PlanReport {
  Plan plan;
  Verdict verdict;
};

/// The plan even where it does not fit. unimplemented naming what this release cannot run;
/// invalid_argument where graph, model and overrides contradict each other.
Result<PlanReport> make_plan_report(const Graph& graph, const ModelProfile& model,
                                    const MachineProfile& machine, const PlanOverrides& overrides);

/// The same; no_room, with the largest context that fits, where it does not.
Result<Plan> make_plan(const Graph& graph, const ModelProfile& model, const MachineProfile& machine,
                       const PlanOverrides& overrides);

}  // namespace chainpump::graph
