// Text of a YAML file -> a small tree with a position at each node. The only part that knows the
// YAML library; it reads events, never the library's documents, because those can be made to take
// minutes. The subset: one document of mappings, sequences and scalars, no anchors, aliases, merge
// keys, tags or directives; sizes and depth are bounded. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/diagnostics.h"

namespace chainpump::graph {

struct YamlLimits {
  static constexpr size_t kFileBytesMax = 256 * 1024;
  static constexpr size_t kLineBytesMax = 4 * 1024;
  static constexpr int kDepthMax = 64;
  static constexpr int kNodesMax = 20000;
};

struct YamlEntry;

struct YamlNode {
  enum class Kind { scalar, mapping, sequence };
  Kind kind = Kind::scalar;
  Position at;
  std::string text;    // of a scalar
  bool empty = false;  // a scalar that is not there, as after `key:`
  std::vector<YamlEntry> entries;
  std::vector<YamlNode> items;
};

struct YamlEntry {
  std::string key;
  Position at;
  YamlNode value;
};

/// False if anything was wrong; everything found then stands in `out`. Duplicate keys are reported
/// and dropped.
bool read_yaml(std::string_view text, YamlNode& root, Diagnostics& out);

}  // namespace chainpump::graph
