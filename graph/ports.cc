#include "graph/ports.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

namespace chainpump::graph {
namespace {

struct OpPorts {
  std::vector<PortType> accepts;
  PortType produces;
  size_t inputs_max;
};

OpPorts ports_of(Op op) {
  using enum PortType;
  switch (op) {
    case Op::decoder:
      return {{tokens, activation}, activation, 1};  // the last gives tokens
    case Op::encoder:
      return {{tokens, activation}, activation, 1};
    case Op::torch:
      return {{tokens, activation, embedding}, activation, 16};
    case Op::tokenize:
      return {{text}, tokens, 1};
    case Op::pool:
      return {{activation}, embedding, 1};
    case Op::classify:
      return {{activation, embedding}, scores, 1};
    case Op::merge:
      return {{activation}, activation, 16};
  }
  return {};
}

Port port(PortType type) {
  switch (type) {
    case PortType::text:
      return {type, {"num_bytes"}};
    case PortType::tokens:
      return {type, {"num_tokens"}};
    case PortType::activation:
      return {type, {"num_tokens", "hidden_size"}};
    case PortType::embedding:
      return {type, {"num_sequences", "hidden_size"}};
    case PortType::scores:
      return {type, {"num_sequences", "num_classes"}};
  }
  return {};
}

}  // namespace

std::string_view to_string(Op op) {
  constexpr std::string_view kNames[] = {"decoder", "encoder",  "torch", "tokenize",
                                         "pool",    "classify", "merge"};
  return kNames[static_cast<size_t>(op)];
}

std::string_view to_string(PortType type) {
  constexpr std::string_view kNames[] = {"text", "tokens", "activation", "embedding", "scores"};
  return kNames[static_cast<size_t>(type)];
}

bool check_acyclic(const std::vector<Stage>& stages, Diagnostics& out) {
  // Depth first, with a stack of its own: a chain of a thousand stages must not recurse.
  enum State : char { unseen, open, done };
  std::vector<State> state(stages.size(), unseen);
  for (size_t root = 0; root < stages.size(); ++root) {
    std::vector<std::pair<size_t, size_t>> path;  // stage, next input to visit
    if (state[root] == unseen) path.emplace_back(root, 0);
    while (!path.empty()) {
      const size_t at = path.back().first;
      state[at] = open;
      if (path.back().second == stages[at].inputs.size()) {
        state[at] = done;
        path.pop_back();
        continue;
      }
      const auto next = static_cast<size_t>(stages[at].inputs[path.back().second++]);
      if (state[next] == open) {
        std::string cycle = stages[next].name;
        for (auto it = path.rbegin(); it != path.rend() && it->first != next; ++it)
          if (cycle.size() < 400) cycle += " -> " + stages[it->first].name;
        out.add(stages[next].at,
                fmt::format("the stages form a cycle: {} -> {}", cycle, stages[next].name));
        return false;
      }
      if (state[next] == unseen) path.emplace_back(next, 0);
    }
  }
  return true;
}

void assign_ports(std::vector<Stage>& stages, Diagnostics& out) {
  if (!check_acyclic(stages, out)) return;
  std::vector<bool> feeds_layers(stages.size(), false);
  for (Stage& stage : stages) {
    const OpPorts ports = ports_of(stage.op);
    if (stage.inputs.size() > ports.inputs_max)
      out.add(stage.at,
              fmt::format("stage '{}': op {} takes at most {} input(s), has {}", stage.name,
                          to_string(stage.op), ports.inputs_max, stage.inputs.size()));
    if (stage.op == Op::merge && stage.inputs.size() < 2)
      out.add(stage.at, fmt::format("stage '{}': op merge takes at least 2 inputs", stage.name));
    stage.output_port = port(ports.produces);
    stage.input_ports.clear();
    if (stage.inputs.empty()) stage.input_ports.push_back(port(ports.accepts.front()));
    for (const int32_t input : stage.inputs) {
      const PortType given = ports_of(stages[static_cast<size_t>(input)].op).produces;
      feeds_layers[static_cast<size_t>(input)] = true;
      stage.input_ports.push_back(port(given));
      if (std::find(ports.accepts.begin(), ports.accepts.end(), given) == ports.accepts.end())
        out.add(stage.at, fmt::format("stage '{}': op {} does not take {} from stage '{}'",
                                      stage.name, to_string(stage.op), to_string(given),
                                      stages[static_cast<size_t>(input)].name));
    }
  }
  for (size_t i = 0; i < stages.size(); ++i)
    if (stages[i].op == Op::decoder && !feeds_layers[i])
      stages[i].output_port = port(PortType::tokens);
}

}  // namespace chainpump::graph
