#include "graph/graph_change.h"

#include <algorithm>
#include <map>

namespace chainpump::graph {

std::vector<KeyDifference> differences(const Graph& now, const Graph& next) {
  std::map<std::string, std::string> before;
  for (const KeyValue& value : values_of(now)) before[value.key] = value.value;
  std::vector<KeyDifference> all;
  for (const KeyValue& value : values_of(next)) {
    const auto found = before.find(value.key);
    const bool is_new = found == before.end();  // its stage is
    const std::string was = is_new ? "" : found->second;
    if (!is_new) before.erase(found);
    const KeyChange change = is_new ? KeyChange::moves : find_key(value.path)->change;
    if (was != value.value) all.push_back({value.key, was, value.value, change});
  }
  for (const KeyValue& value : values_of(now))  // of stages that are gone
    if (before.count(value.key) > 0 && !value.value.empty())
      all.push_back({value.key, value.value, "", KeyChange::moves});
  return all;
}

Graph with_choices_of(const Plan& now, const Graph& graph_now, Graph next) {
  const bool kv_was_auto = graph_now.kv_blocks == 0 && graph_now.kv_budget_bytes == 0;
  if (kv_was_auto && next.kv_blocks == 0 && next.kv_budget_bytes == 0)
    next.kv_blocks = now.kv.num_blocks;
  if (graph_now.context_tokens == 0 && next.context_tokens == 0)
    next.context_tokens = now.context_tokens;
  const auto is_cut = [](const Stage& stage) { return stage.layers.has_value(); };
  if (next.stages.size() != now.stages.size() ||
      std::any_of(graph_now.stages.begin(), graph_now.stages.end(), is_cut) ||
      std::any_of(next.stages.begin(), next.stages.end(), is_cut))
    return next;
  for (size_t i = 0; i < next.stages.size(); ++i)
    next.stages[i].layers = LayerRange{now.stages[i].layer_begin, now.stages[i].layer_end};
  return next;
}

Status may_change(const Graph& now, const Graph& next) {
  for (const KeyDifference& each : differences(now, next))
    if (each.change == KeyChange::restart)
      return make_error(ErrorCode::invalid_argument,
                        "{} cannot be changed while the service runs: end it, and start it with "
                        "the new graph file",
                        each.key);
  return ok_status();
}

}  // namespace chainpump::graph
