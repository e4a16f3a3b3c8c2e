#include "graph/runnable.h"

#include <algorithm>

namespace chainpump::graph {
namespace {

/// "1", or "2 or 4": the divisors of `lanes` on both sides of `count`, which is none.
std::string nearest_counts(int32_t count, int32_t lanes) {
  int32_t below = count;
  while (lanes % below != 0) --below;
  int32_t above = count;
  while (lanes % above != 0) ++above;
  return fmt::format("{} or {}", below, above);
}

Status check_lanes(const Graph& graph) {
  const Stage& most =
      *std::max_element(graph.stages.begin(), graph.stages.end(),
                        [](const Stage& a, const Stage& b) { return a.replicas < b.replicas; });
  for (const Stage& stage : graph.stages)
    if (most.replicas % stage.replicas != 0)
      return make_error(ErrorCode::invalid_argument,
                        "stage '{}' ({}:{}): replicas: {} cannot share the {} lanes that stage "
                        "'{}' makes evenly; {} can",
                        stage.name, stage.at.line, stage.at.column, stage.replicas, most.replicas,
                        most.name, nearest_counts(stage.replicas, most.replicas));
  return ok_status();
}

}  // namespace

Status check_runnable(const Graph& graph) {
  const auto refuse = [](const Stage& stage, const std::string& what) {
    return make_error(ErrorCode::unimplemented, "stage '{}' ({}:{}): {} cannot be run yet",
                      stage.name, stage.at.line, stage.at.column, what);
  };
  for (size_t i = 0; i < graph.stages.size(); ++i) {
    const Stage& stage = graph.stages[i];
    if (stage.op != Op::decoder) return refuse(stage, fmt::format("op {}", to_string(stage.op)));
    if (stage.device.kind == DeviceRequest::Kind::cuda)
      return refuse(stage, fmt::format("device cuda:{}", stage.device.cuda_index));
    if (stage.standbys > 0 && stage.replicas > 1)
      return refuse(stage, fmt::format("standbys of a stage with replicas: {}", stage.replicas));
    const bool follows =
        i == 0 ? stage.inputs.empty()
               : stage.inputs.size() == 1 && stage.inputs[0] == static_cast<int32_t>(i) - 1;
    if (!follows) return refuse(stage, "a graph that is not a chain in file order");
  }
  if (graph.wire != WireType::f32)
    return make_error(ErrorCode::unimplemented, "links.wire: only f32 can be run yet");
  return check_lanes(graph);
}

}  // namespace chainpump::graph
