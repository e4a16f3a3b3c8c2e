// Values of graph keys from YAML scalars, checked against the table of keys. Each reader reports
// what is wrong and returns nothing then. Pure; any thread.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "graph/graph.h"
#include "graph/keys.h"
#include "graph/yaml_events.h"

namespace chainpump::graph {

/// The checked values of one mapping, by path.
struct Values {
  struct Value {
    int64_t number = 0;  // integer, bytes, boolean, duration in ms; index of a choice
    std::string text;
    std::vector<std::pair<std::string, Position>> names;
    std::optional<LayerRange> layers;
    DeviceRequest device;
    Position at;
  };
  std::map<std::string, Value, std::less<>> by_path;
  const Value* find(std::string_view path) const {
    const auto it = by_path.find(path);
    return it == by_path.end() ? nullptr : &it->second;
  }
  int64_t number(std::string_view path, int64_t otherwise) const {
    const Value* value = find(path);
    return value ? value->number : otherwise;
  }
};

/// Decodes every key of `node` (a mapping) below `section`; `stages` itself is left to the caller,
/// who finds its node in `stages`.
void decode_mapping(const YamlNode& node, std::string_view section, Values& values,
                    const YamlNode** stages, Diagnostics& out);

}  // namespace chainpump::graph
