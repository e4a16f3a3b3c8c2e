// What two graph files differ in, key by key, and whether a service that runs by one of them can go
// on by the other: what `chainpump diff` shows first. What that is for the ranks: plan_change.h.
// Pure; any thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "graph/graph.h"
#include "graph/graph_text.h"
#include "graph/keys.h"
#include "graph/plan.h"

namespace chainpump::graph {

struct KeyDifference {
  std::string key;  // "kv.type", "stages[front].threads"
  std::string before;
  std::string after;  // either may be empty: the key is not there
  KeyChange change = KeyChange::section;
};

/// In the table's order.
std::vector<KeyDifference> differences(const Graph& now, const Graph& next);

/// `next`, where what is `auto` in both and depends on the machine's state (context, blocks, and
/// the cut between as many stages) is what the plan in force has made of it.
Graph with_choices_of(const Plan& now, const Graph& graph_now, Graph next);

/// invalid_argument, naming the first key that stands against it, and what to do.
Status may_change(const Graph& now, const Graph& next);

}  // namespace chainpump::graph
