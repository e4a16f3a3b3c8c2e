#include "cli/yaml_output.h"

#include <algorithm>

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

std::string one_line(const Json& list) {
  std::string out = "[";
  for (const Json& item : list) out += (out.size() > 1 ? ", " : "") + plain(item);
  return out + "]";
}

/// `json` after "key:" or "-", from the space or line break on. `first_inline`: a mapping's first
/// key follows on the same line, as after "-".
void append_value(const Json& json, size_t indent, bool first_inline, std::string& out) {
  if (is_plain(json)) {
    out += " " + plain(json) + "\n";
    return;
  }
  const std::string pad(indent, ' ');
  bool same_line = first_inline;
  if (json.is_array()) {
    if (std::all_of(json.begin(), json.end(), is_plain)) {
      out += " " + one_line(json) + "\n";
      return;
    }
    for (const Json& item : json) {
      out += same_line ? " -" : (out.ends_with('\n') ? "" : "\n") + pad + "-";
      same_line = false;
      append_value(item, indent + 2, true, out);
    }
    return;
  }
  for (const auto& [key, value] : json.items()) {
    out += same_line ? " " : (out.ends_with('\n') ? "" : "\n") + pad;
    same_line = false;
    out += plain(Json(key)) + ":";
    append_value(value, indent + 2, false, out);
  }
}

}  // namespace

std::string to_yaml(const nlohmann::ordered_json& json) {
  if (is_plain(json)) return plain(json) + "\n";
  std::string out = "\n";
  append_value(json, 0, false, out);
  return out.substr(out.front() == '\n' ? 1 : 0);
}

}  // namespace chainpump::cli
