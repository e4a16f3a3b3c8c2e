// JSON from outside, strictly: nested 64 deep at most, no key twice in an object. Pure; any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/result.h"

namespace chainpump::gateway::openai {

using Json = nlohmann::json;

inline constexpr int kJsonDepthMax = 64;

/// invalid_argument with the byte where it stops being JSON (from 1), or the key that is there
/// twice.
Result<Json> parse_json(std::string_view text);

}  // namespace chainpump::gateway::openai
