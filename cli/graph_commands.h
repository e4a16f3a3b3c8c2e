// `chainpump validate`, `plan` and `explain`. Plain functions: main.cc owns the command line.
// Output on standard output, errors on standard error; the result is the exit status. One thread.
#pragma once

#include <string>
#include <vector>

#include "graph/planner.h"

namespace chainpump::cli {

struct GraphCommandOptions {
  std::string graph;  // a file, or "demo"
  bool json = false;
  bool yaml = false;  // the same tree as YAML
};

/// The file's graph, or the built-in one for "demo".
Result<graph::Graph> find_graph(const std::string& name);

/// 0, or 3 with all errors. JSON: {"valid": true, "stages": N} or {"valid": false, "errors":
/// [{"file", "line", "column", "message"}], "more_errors": N}, on standard output either way; line
/// and column are null where the file itself could not be read.
int run_validate(const GraphCommandOptions& options);

/// `model` is the profile of the file that the graph or the overrides name. 4 if it does not fit
/// (the plan is printed all the same). JSON: {"graph", "fits", "needed_bytes", "available_bytes",
/// "context_tokens", "largest_context_tokens", "kv": {"type", "block_tokens", "num_blocks"},
/// "stages": [{"name", "layers": [begin, end), "device", "cores", "threads", "weight_bytes",
/// "kv_bytes", "slot_bytes", "predicted_decode_ms", "predicted_prefill_ms"}], "edges": [{"from",
/// "to", "is_return", "transport", "spin", "checksum", "credits", "slot_bytes"}]}; over nodes also
/// "over", which is `note`, "nodes": [{"name", "cores"}], of a stage "nodes" (its ranks' homes),
/// and "tightest_node", which the bytes are of.
int run_plan(const GraphCommandOptions& options, const graph::PlanOverrides& overrides,
             const graph::ModelProfile& model, const std::vector<graph::Node>& nodes,
             const std::string& note);

/// Explains a graph key; with an empty key, lists all. 2 if there is no such key.
int run_explain(const std::string& key);

}  // namespace chainpump::cli
