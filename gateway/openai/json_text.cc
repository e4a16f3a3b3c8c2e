#include "gateway/openai/json_text.h"

#include <set>
#include <string>
#include <vector>

#include "graph/diagnostics.h"

namespace chainpump::gateway::openai {
namespace {

/// What the parser says while it reads; values that cannot be part of the result are dropped at
/// once, so that hostile text costs no memory.
struct Watcher {
  std::vector<std::set<std::string>> keys;  // of the objects that are open, by depth
  std::string twice;
  bool too_deep = false;

  bool operator()(int depth, Json::parse_event_t event, const Json& parsed) {
    if (depth >= kJsonDepthMax) too_deep = true;
    if (too_deep) return false;
    const auto level = static_cast<size_t>(depth);
    if (event == Json::parse_event_t::object_start) {
      if (keys.size() <= level) keys.resize(level + 1);
      keys[level].clear();
    } else if (event == Json::parse_event_t::key) {
      auto [key, is_new] = keys[level - 1].insert(parsed.get<std::string>());
      if (!is_new && twice.empty()) twice = *key;
    }
    return true;
  }
};

}  // namespace

Result<Json> parse_json(std::string_view text) {
  Watcher watcher;
  Json json;
  try {
    json = Json::parse(text, std::ref(watcher));
  } catch (const Json::exception& error) {
    const auto* where = dynamic_cast<const Json::parse_error*>(&error);
    if (where == nullptr)  // a number beyond all doubles
      return make_error(ErrorCode::invalid_argument, "not JSON that can be held: {}", error.what());
    return make_error(ErrorCode::invalid_argument, "not JSON from byte {} on", where->byte);
  }
  if (watcher.too_deep)
    return make_error(ErrorCode::invalid_argument, "JSON nested more than {} deep", kJsonDepthMax);
  if (!watcher.twice.empty())
    return make_error(ErrorCode::invalid_argument, "'{}' is there twice",
                      graph::shown(watcher.twice));
  return json;
}

}  // namespace chainpump::gateway::openai
