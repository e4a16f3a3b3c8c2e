#include "graph/graph.h"

#include <fmt/format.h>

#include <unordered_map>

#include "base/mapped_file.h"
#include "graph/decode.h"
#include "graph/ports.h"

namespace chainpump::graph {
namespace {

constexpr DType kKvTypes[] = {DType::f32, DType::bf16, DType::f16, DType::int8};
constexpr TransportKind kTransports[] = {TransportKind::automatic, TransportKind::tcp,
                                         TransportKind::shared_memory};

Graph graph_from(const Values& values) {
  Graph graph;
  const auto int32 = [&](std::string_view path, int32_t otherwise) {
    return static_cast<int32_t>(values.number(path, otherwise));
  };
  if (const auto* name = values.find("name")) graph.name = name->text;
  if (const auto* model = values.find("model")) graph.model_path = model->text;
  graph.threads = int32("threads", 0);
  graph.exact_activations = values.number("activations", 0) == 1;
  graph.prefill_chunk = int32("batching.prefill_chunk", graph.prefill_chunk);  // auto: 0
  graph.decode_delay_ms = int32("batching.decode_delay", graph.decode_delay_ms);
  graph.max_queued = int32("batching.max_queued", graph.max_queued);
  graph.max_sequences = int32("batching.max_sequences", graph.max_sequences);
  graph.max_microbatches = int32("batching.max_microbatches", 0);
  graph.kv_type = kKvTypes[values.number("kv.type", 0)];
  graph.kv_budget_bytes = values.number("kv.budget", 0);
  graph.kv_blocks = int32("kv.blocks", 0);
  graph.context_tokens = int32("kv.context", 0);
  graph.prefix_cache = values.number("kv.prefix_cache", 1) == 1;
  graph.transport = kTransports[values.number("links.transport", 0)];
  graph.spin = static_cast<SpinPolicy>(values.number("links.spin", 0));
  graph.checksum = static_cast<ChecksumPolicy>(values.number("links.checksum", 0));
  graph.wire = static_cast<WireType>(values.number("links.wire", 0));
  graph.credits = int32("links.credits", graph.credits);
  graph.memory_bytes = values.number("limits.memory", 0);
  graph.failover_restarts = int32("failover.restarts", graph.failover_restarts);
  graph.failover_window_ms = int32("failover.window", graph.failover_window_ms);
  graph.failover_evicts_slow = values.number("failover.slow", 0) == 1;
  // 0 has a meaning of its own here.
  if (const auto* log = values.find("replay_log"); log != nullptr && log->text != "auto")
    graph.replay_log_bytes = log->number;
  return graph;
}

Stage stage_from(const Values& values, size_t index, Position at) {
  Stage stage;
  stage.at = at;
  const auto* name = values.find("stages[].name");
  stage.name = name ? name->text : fmt::format("stage{}", index);
  stage.op = static_cast<Op>(values.number("stages[].op", 0));
  if (const auto* layers = values.find("stages[].layers")) stage.layers = layers->layers;
  if (const auto* device = values.find("stages[].device")) stage.device = device->device;
  stage.threads = static_cast<int32_t>(values.number("stages[].threads", 0));
  stage.replicas = static_cast<int32_t>(values.number("stages[].replicas", 1));
  stage.standbys = static_cast<int32_t>(values.number("stages[].standbys", 0));
  if (const auto* nodes = values.find("stages[].nodes"))
    for (const auto& [node, where] : nodes->names) stage.nodes.push_back(node);
  if (const auto* module = values.find("stages[].module")) stage.module = module->text;
  stage.trusted = values.number("stages[].trusted", 0) == 1;
  return stage;
}

/// What an op demands of its own keys.
void check_stage(const Stage& stage, Diagnostics& out) {
  const bool torch = stage.op == Op::torch;
  if (torch && !stage.trusted)
    out.add(stage.at,
            fmt::format("stage '{}': op torch runs code, so it needs trusted: true", stage.name));
  if (torch && stage.module.empty())
    out.add(stage.at, fmt::format("stage '{}': op torch needs a module", stage.name));
  if (!torch && (stage.trusted || !stage.module.empty()))
    out.add(stage.at,
            fmt::format("stage '{}': module and trusted belong to op torch only", stage.name));
  if (stage.layers && stage.op != Op::decoder && stage.op != Op::encoder)
    out.add(stage.at,
            fmt::format("stage '{}': op {} has no layers", stage.name, to_string(stage.op)));
}

class StageList {
 public:
  StageList(Graph& graph, Diagnostics& out) : stages_(graph.stages), out_(out) {}

  void read(const YamlNode& node) {
    const KeySpec& key = *find_key("stages");
    if (node.kind == YamlNode::Kind::scalar) {
      int64_t count = 0;
      if (!read_count(node.text, count) || count < key.low || count > key.high)
        out_.add(node.at, fmt::format("stages is '{}', must be an integer in [{}, {}] or a list",
                                      shown(node.text), key.low, key.high));
      else
        stages_ = decoder_chain(static_cast<int32_t>(count));
      return;
    }
    if (node.kind != YamlNode::Kind::sequence) {
      out_.add(node.at, "stages must be a number or a list of stages");
      return;
    }
    if (node.items.empty() || node.items.size() > static_cast<size_t>(key.high)) {
      out_.add(node.at, fmt::format("{} stages, must be 1 to {}", node.items.size(), key.high));
      return;
    }
    for (const YamlNode& item : node.items) {
      Values& values = values_.emplace_back();
      const YamlNode* nested = nullptr;
      decode_mapping(item, "stages[]", values, &nested, out_);
      stages_.push_back(stage_from(values, stages_.size(), item.at));
      check_stage(stages_.back(), out_);
    }
    connect();
    check_layers();
  }

 private:
  static bool read_count(const std::string& text, int64_t& count) {
    if (text.empty() || text.size() > 9 || text.find_first_not_of("0123456789") != text.npos)
      return false;
    count = std::stoll(text);
    return true;
  }

  void connect() {
    std::unordered_map<std::string_view, int32_t> index;
    for (size_t i = 0; i < stages_.size(); ++i) {
      const auto [first, is_new] = index.emplace(stages_[i].name, static_cast<int32_t>(i));
      if (!is_new)
        out_.add(stages_[i].at,
                 fmt::format("a second stage named '{}' (first on line {})", stages_[i].name,
                             stages_[static_cast<size_t>(first->second)].at.line));
    }
    for (size_t i = 0; i < stages_.size(); ++i) {
      const auto* inputs = values_[i].find("stages[].inputs");
      if (inputs == nullptr) {
        if (i > 0) stages_[i].inputs.push_back(static_cast<int32_t>(i) - 1);
        continue;
      }
      for (const auto& [name, at] : inputs->names) {
        const auto it = index.find(name);
        if (it != index.end())
          stages_[i].inputs.push_back(it->second);
        else
          out_.add(at, fmt::format("no stage is named '{}'{}", name,
                                   out_.full() ? "" : hint(name, names())));
      }
    }
  }

  std::vector<std::string_view> names() const {
    std::vector<std::string_view> all;
    for (const Stage& stage : stages_) all.push_back(stage.name);
    return all;
  }

  /// Explicit layers: all or none, without gap or overlap.
  void check_layers() {
    const Stage* last = nullptr;
    bool some_without = false;
    for (const Stage& stage : stages_) {
      if (stage.op != Op::decoder) continue;
      some_without |= !stage.layers;
      if (!stage.layers) continue;
      const int32_t expected = last ? last->layers->end : 0;
      if (stage.layers->begin != expected)
        out_.add(stage.at, fmt::format("stage '{}' begins with layer {}, must begin with {}{}",
                                       stage.name, stage.layers->begin, expected,
                                       last ? ", the one after stage '" + last->name + "'" : ""));
      last = &stage;
    }
    if (last != nullptr && some_without)
      out_.add(last->at, "either all decoder stages give layers or none");
  }

  std::vector<Stage>& stages_;
  std::vector<Values> values_;
  Diagnostics& out_;
};

}  // namespace

std::vector<Stage> decoder_chain(int32_t count) {
  std::vector<Stage> stages(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) {
    Stage& stage = stages[static_cast<size_t>(i)];
    stage.name = fmt::format("stage{}", i);
    if (i > 0) stage.inputs.push_back(i - 1);
  }
  Diagnostics none;
  assign_ports(stages, none);
  return stages;
}

std::optional<Graph> parse_graph(std::string_view text, Diagnostics& out) {
  YamlNode root;
  if (!read_yaml(text, root, out) && root.entries.empty()) return std::nullopt;
  Values values;
  const YamlNode* stages = nullptr;
  decode_mapping(root, "", values, &stages, out);
  Graph graph = graph_from(values);
  if (stages != nullptr) {
    StageList(graph, out).read(*stages);
    if (out.empty())
      assign_ports(graph.stages, out);
    else if (!graph.stages.empty())
      check_acyclic(graph.stages, out);
  } else {
    graph.stages = decoder_chain(1);
  }
  if (values.number("kv.budget", 0) > 0 && values.number("kv.blocks", 0) > 0)
    out.add(values.find("kv.blocks")->at, "kv.blocks and kv.budget exclude each other");
  out.sort();
  if (!out.empty()) return std::nullopt;
  return graph;
}

Result<Graph> parse_graph_text(std::string_view text, std::string_view file_name) {
  Diagnostics out;
  auto graph = parse_graph(text, out);
  if (!graph) return Error{ErrorCode::bad_file, out.to_text(file_name)};
  return std::move(*graph);
}

Result<Graph> load_graph(const std::filesystem::path& path, Diagnostics& out) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(path));
  const auto bytes = file.bytes();
  auto graph = parse_graph({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, out);
  if (!graph) return Error{ErrorCode::bad_file, out.to_text(path.string())};
  if (!graph->model_path.empty())
    graph->model_path = (path.parent_path() / graph->model_path).lexically_normal().string();
  return std::move(*graph);
}

Result<Graph> load_graph(const std::filesystem::path& path) {
  Diagnostics out;
  return load_graph(path, out);
}

}  // namespace chainpump::graph
