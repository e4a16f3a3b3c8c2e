#include "cli/yaml_output.h"

#include <algorithm>
#include <optional>
#include <string_view>

namespace chainpump::cli {
namespace {

using Json = nlohmann::ordered_json;

bool is_plain(const Json& json) { return !json.is_structured() || json.empty(); }

/// What JSON writes, YAML reads; but YAML 1.1 takes a number for one only if its mantissa has a
/// point: 1e-05 would be text.
std::string plain(const Json& json) {
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  const size_t exponent = json.is_number_float() ? text.find('e') : std::string::npos;
  if (exponent != std::string::npos && text.find('.') == std::string::npos)
    text.insert(exponent, ".0");
  return text;
}

/// Our keys are words of small letters; all others are quoted, and so are YAML's own words.
std::string key_text(const std::string& key) {
  constexpr std::string_view kTaken[] = {"y",   "n",    "yes",   "no",  "on",
                                         "off", "true", "false", "null"};
  const bool is_word = key.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string::npos;
  const bool taken = std::find(std::begin(kTaken), std::end(kTaken), key) != std::end(kTaken);
  return is_word && !taken && !key.empty() ? key : plain(Json(key));
}

/// What stands on one line: a plain value, or a list of them.
std::optional<std::string> one_line(const Json& json) {
  if (is_plain(json)) return plain(json);
  if (!json.is_array() || !std::all_of(json.begin(), json.end(), is_plain)) return std::nullopt;
  std::string out = "[";
  for (const Json& item : json) out += (out.size() > 1 ? ", " : "") + plain(item);
  return out + "]";
}

std::string block(const Json& json, size_t indent) {
  const std::string pad(indent, ' ');
  std::string out;
  if (json.is_array()) {
    for (const Json& item : json) {
      const auto line = one_line(item);
      std::string text = line ? pad + "  " + *line + "\n" : block(item, indent + 2);
      text[indent] = '-';
      out += text;
    }
    return out;
  }
  for (const auto& [key, value] : json.items()) {
    const auto line = one_line(value);
    out += pad + key_text(key) + ":";
    out += line ? " " + *line + "\n" : "\n" + block(value, indent + 2);
  }
  return out;
}

}  // namespace

std::string to_yaml(const nlohmann::ordered_json& json) {
  const auto line = one_line(json);
  return line ? *line + "\n" : block(json, 0);
}

}  // namespace chainpump::cli
