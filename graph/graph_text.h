// A graph as text again: every key with its value as it is in force, flags counted in. What two
// graphs differ in is told by it, and what a service runs is kept as it. Pure; any thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"

namespace chainpump::graph {

struct KeyValue {
  std::string key;    // as in the table of keys: "kv.type"; of a stage "stages[front].threads"
  std::string path;   // the table's: "stages[].threads"
  std::string value;  // as a graph file says it; empty: the key is not there
};

/// In the table's order; of every stage, in the graph's.
std::vector<KeyValue> values_of(const Graph& graph);

/// A graph file from which parse_graph() makes the same graph.
std::string to_yaml(const Graph& graph);

}  // namespace chainpump::graph
