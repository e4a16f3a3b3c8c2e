// A JSON tree as YAML, for `-o yaml`: the same keys in the same order. Block style; lists of plain
// values stand on one line; every string is quoted, so that no reader takes one for something else.
// Pure; any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace chainpump::cli {

/// Ends in a newline. Bytes that are not UTF-8 are replaced.
std::string to_yaml(const nlohmann::ordered_json& json);

}  // namespace chainpump::cli
