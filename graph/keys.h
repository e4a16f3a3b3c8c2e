// The one table of graph keys: the decoder, the JSON Schema, `explain` and docs/graph.md all come
// from it, so that they cannot disagree. Constant data; any thread.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/diagnostics.h"

namespace chainpump::graph {

enum class KeyType : uint8_t {
  text,      // any string up to 4,096 bytes
  name,      // letters, digits, '-', '_'; at most 64
  integer,   // in [low, high]; with `automatic`, also `auto`, decoded as 0
  bytes,     // an integer with an optional unit: B, KiB, MiB, GiB, TiB; `auto` likewise
  duration,  // an integer with its unit, ms or s; in [low, high] milliseconds, decoded as those
  boolean,   // true or false
  choice,    // one of `choices`
  layers,    // FIRST-LAST, both included, or one layer
  device,    // auto, cpu, cpu:0-1,4 (both ends included) or cuda:N
  names,     // a list of names
  section,   // a mapping of the keys below it
  stages,    // a number, or a list of stage mappings
};
std::string_view to_string(KeyType type);

/// What `chainpump apply` has to do for another value of the key, at most (graph/plan_change.h).
enum class KeyChange : uint8_t {
  section,   // the keys below it say
  in_place,  // no rank knows of it
  moves,     // ranks do, and others take their places
  restart,   // it cannot be changed while the service runs
};
std::string_view to_string(KeyChange change);

struct KeySpec {
  std::string_view path;  // "kv.type", "stages[].op"
  KeyType type;
  KeyChange change;
  std::string_view default_text;  // as a user would write it
  std::string_view doc;
  int64_t low = 0;
  int64_t high = 0;
  bool automatic = false;
  std::string_view choices = {};  // "a|b|c"
  std::string_view flag = {};     // the command line's name for it
};

std::span<const KeySpec> graph_keys();
const KeySpec* find_key(std::string_view path);
/// The keys directly below `section` ("" for the top, "stages[]" for a stage), without the prefix.
std::vector<std::string_view> keys_below(std::string_view section);
std::vector<std::string_view> split_choices(std::string_view choices);

/// schemas/graph.schema.json and docs/graph.md, whole.
std::string graph_json_schema();
std::string graph_markdown();
/// What `explain KEY` prints; nothing if there is no such key.
std::optional<std::string> explain_key(std::string_view path);

}  // namespace chainpump::graph
