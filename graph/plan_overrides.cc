#include "graph/plan_overrides.h"

#include <algorithm>
#include <string_view>

#include "base/kv_layout.h"

namespace chainpump::graph {
namespace {

constexpr int32_t kStagesMax = 1024;

Status check_overrides(const PlanOverrides& o) {
  const auto within = [](std::string_view name, std::optional<int32_t> value, int32_t low,
                         int32_t high) -> Status {
    if (!value || (*value >= low && *value <= high)) return ok_status();
    return make_error(ErrorCode::invalid_argument, "{} is {}, must be in [{}, {}]", name, *value,
                      low, high);
  };
  RETURN_IF_ERROR(within("--stages", o.stages, 1, kStagesMax));
  RETURN_IF_ERROR(within("--threads", o.threads, 1, 1024));
  RETURN_IF_ERROR(within("--context", o.context_tokens, 1, 1 << 24));
  RETURN_IF_ERROR(within("--prefill-chunk", o.prefill_chunk, 1, 65536));
  if (o.kv_type && !is_kv_type(*o.kv_type))
    return make_error(ErrorCode::invalid_argument, "--kv-type must be f32, bf16, f16 or int8");
  return ok_status();
}

}  // namespace

Result<Graph> with_overrides(Graph graph, const PlanOverrides& o) {
  RETURN_IF_ERROR(check_overrides(o));
  if (o.stages) graph.stages = decoder_chain(std::clamp(*o.stages, 1, kStagesMax));
  if (o.threads) {
    graph.threads = *o.threads;
    for (Stage& stage : graph.stages) stage.threads = 0;
  }
  graph.model_path = o.model_path.value_or(graph.model_path);
  graph.context_tokens = o.context_tokens.value_or(graph.context_tokens);
  graph.exact_activations = o.exact_activations.value_or(graph.exact_activations);
  graph.transport = o.transport.value_or(graph.transport);
  graph.spin = o.spin.value_or(graph.spin);
  graph.prefill_chunk = o.prefill_chunk.value_or(graph.prefill_chunk);
  graph.kv_type = o.kv_type.value_or(graph.kv_type);
  return graph;
}

}  // namespace chainpump::graph
