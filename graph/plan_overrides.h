// What the command line says instead of the graph file. Plain data and a pure function; any thread.
// Not here: the flags themselves (cli/main.cc), and whether what is asked for fits (planner.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/dtype.h"
#include "base/result.h"
#include "graph/graph.h"
#include "graph/plan.h"

namespace chainpump::graph {

/// The command line's words; each wins over the file.
struct PlanOverrides {
  std::optional<int32_t> stages;  // replaces the file's stages by a chain of decoders
  std::optional<int32_t> threads;
  std::optional<std::string> model_path;
  std::optional<int32_t> context_tokens;
  std::optional<bool> exact_activations;
  std::optional<TransportKind> transport;
  std::optional<SpinPolicy> spin;
  std::optional<int32_t> prefill_chunk;
  std::optional<DType> kv_type;
};

/// The graph with them in place of what its file says. invalid_argument if one is out of its
/// bounds.
Result<Graph> with_overrides(Graph graph, const PlanOverrides& o);

}  // namespace chainpump::graph
