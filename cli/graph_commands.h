// `chainpump validate`, `plan` and `explain`. Plain functions: main.cc owns the command line.
// Output on standard output, errors on standard error; the result is the exit status. One thread.
#pragma once

#include <string>

#include "graph/planner.h"

namespace chainpump::cli {

struct GraphCommandOptions {
  std::string graph;  // a file, or "demo"
  bool json = false;
};

/// The file's graph, or the built-in one for "demo".
Result<graph::Graph> find_graph(const std::string& name);

int run_validate(const GraphCommandOptions& options);
/// `model` is the profile of the file that the graph or the overrides name. 4 if it does not fit
/// (the plan is printed all the same).
int run_plan(const GraphCommandOptions& options, const graph::PlanOverrides& overrides,
             const graph::ModelProfile& model, const graph::MachineProfile& machine);
int run_explain(const std::string& key);

}  // namespace chainpump::cli
