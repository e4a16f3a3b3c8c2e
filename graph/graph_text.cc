#include "graph/graph_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "graph/keys.h"

namespace chainpump::graph {
namespace {

/// Which of the key's choices.
template <typename T>
std::string chosen(std::string_view path, T which) {
  return std::string(split_choices(find_key(path)->choices).at(static_cast<size_t>(which)));
}

std::string or_auto(int64_t value) { return value == 0 ? "auto" : fmt::format("{}", value); }
std::string flag(bool is_set) { return is_set ? "true" : "false"; }

/// In double quotes, as YAML has them.
std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      out += fmt::format("\\{}", c);
    else if (byte < 0x20 || byte == 0x7f)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  return out + "\"";
}

std::string text_of(const DeviceRequest& device) {
  switch (device.kind) {
    case DeviceRequest::Kind::automatic:
      return "auto";
    case DeviceRequest::Kind::cpu:
      return device.cores.empty() ? "cpu" : fmt::format("cpu:{}", fmt::join(device.cores, ","));
    case DeviceRequest::Kind::cuda:
      return fmt::format("cuda:{}", device.cuda_index);
  }
  return {};
}

std::string list_of(const std::vector<std::string>& names) {
  std::vector<std::string> all;
  for (const std::string& name : names) all.push_back(in_quotes(name));
  return fmt::format("[{}]", fmt::join(all, ", "));
}

std::string value_of(const Graph& graph, const Stage& stage, std::string_view path) {
  if (path == "stages[].name") return in_quotes(stage.name);
  if (path == "stages[].op") return chosen(path, stage.op);
  if (path == "stages[].inputs") {
    std::vector<std::string> names;
    for (const int32_t input : stage.inputs)
      names.push_back(graph.stages[static_cast<size_t>(input)].name);
    return list_of(names);
  }
  if (path == "stages[].layers")
    return stage.layers ? fmt::format("{}-{}", stage.layers->begin, stage.layers->end - 1) : "";
  if (path == "stages[].device") return text_of(stage.device);
  if (path == "stages[].threads") return or_auto(stage.threads);
  if (path == "stages[].replicas") return fmt::format("{}", stage.replicas);
  if (path == "stages[].standbys") return fmt::format("{}", stage.standbys);
  if (path == "stages[].nodes") return stage.nodes.empty() ? "" : list_of(stage.nodes);
  if (path == "stages[].module") return stage.module.empty() ? "" : in_quotes(stage.module);
  if (path == "stages[].trusted") return flag(stage.trusted);
  return {};
}

std::string value_of(const Graph& graph, std::string_view path) {
  if (path == "version") return "1";
  if (path == "name") return in_quotes(graph.name);
  if (path == "model") return graph.model_path.empty() ? "" : in_quotes(graph.model_path);
  if (path == "partition") return "auto";
  if (path == "threads") return or_auto(graph.threads);
  if (path == "activations") return chosen(path, graph.exact_activations ? 1 : 0);
  if (path == "batching.prefill_chunk") return or_auto(graph.prefill_chunk);
  if (path == "batching.decode_delay") return fmt::format("{}ms", graph.decode_delay_ms);
  if (path == "batching.max_sequences") return fmt::format("{}", graph.max_sequences);
  if (path == "batching.max_queued") return fmt::format("{}", graph.max_queued);
  if (path == "batching.max_microbatches") return or_auto(graph.max_microbatches);
  if (path == "kv.type") return std::string(to_string(graph.kv_type));
  if (path == "kv.budget") return or_auto(graph.kv_budget_bytes);
  if (path == "kv.blocks") return or_auto(graph.kv_blocks);
  if (path == "kv.context") return or_auto(graph.context_tokens);
  if (path == "kv.prefix_cache") return flag(graph.prefix_cache);
  if (path == "links.transport")  // no file can ask for loopback
    return graph.transport == TransportKind::loopback ? "auto" : chosen(path, graph.transport);
  if (path == "links.spin") return chosen(path, graph.spin);
  if (path == "links.credits") return fmt::format("{}", graph.credits);
  if (path == "links.checksum") return chosen(path, graph.checksum);
  if (path == "links.wire") return chosen(path, graph.wire);
  if (path == "failover.restarts") return fmt::format("{}", graph.failover_restarts);
  if (path == "failover.window") return fmt::format("{}ms", graph.failover_window_ms);
  if (path == "failover.slow") return chosen(path, graph.failover_evicts_slow ? 1 : 0);
  if (path == "replay_log")
    return graph.replay_log_bytes ? fmt::format("{}", *graph.replay_log_bytes) : "auto";
  if (path == "limits.memory") return or_auto(graph.memory_bytes);
  return {};
}

std::string_view last_of(std::string_view path) { return path.substr(path.rfind('.') + 1); }

}  // namespace

std::vector<KeyValue> values_of(const Graph& graph) {
  std::vector<KeyValue> values;
  for (const KeySpec& key : graph_keys()) {
    const std::string path(key.path);
    if (key.change == KeyChange::section) continue;
    if (path.starts_with("stages[]")) continue;  // below
    if (path != "stages") {
      values.push_back({path, path, value_of(graph, path)});
      continue;
    }
    std::vector<std::string> names;
    for (const Stage& stage : graph.stages) names.push_back(stage.name);
    values.push_back({path, path, fmt::format("{}", fmt::join(names, ", "))});
    for (const Stage& stage : graph.stages)
      for (const std::string_view below : keys_below("stages[]")) {
        const std::string of_stage = fmt::format("stages[].{}", below);
        values.push_back({fmt::format("stages[{}].{}", stage.name, below), of_stage,
                          value_of(graph, stage, of_stage)});
      }
  }
  return values;
}

std::string to_yaml(const Graph& graph) {
  std::string out;
  for (const KeySpec& key : graph_keys()) {
    const std::string_view path = key.path;
    if (path.starts_with("stages[]")) continue;  // below
    if (key.type == KeyType::section) {
      out += fmt::format("{}:\n", path);
    } else if (path == "stages") {
      out += "stages:\n";
      for (const Stage& stage : graph.stages) {
        const char* lead = "  - ";
        for (const std::string_view below : keys_below("stages[]")) {
          const std::string value = value_of(graph, stage, fmt::format("stages[].{}", below));
          if (value.empty()) continue;
          out += fmt::format("{}{}: {}\n", lead, below, value);
          lead = "    ";
        }
      }
    } else if (const std::string value = value_of(graph, path); !value.empty()) {
      const bool is_below = path.find('.') != std::string_view::npos;
      out += fmt::format("{}{}: {}\n", is_below ? "  " : "", last_of(path), value);
    }
  }
  return out;
}

}  // namespace chainpump::graph
