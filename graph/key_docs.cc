// What people and editors read of the table of keys: JSON Schema, Markdown, explanations.
#include <fmt/format.h>

#include "graph/keys.h"

namespace chainpump::graph {
namespace {

/// The doc texts hold no control characters; quotes and backslashes are escaped all the same.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string type_schema(const KeySpec& key, int indent);

std::string object_schema(std::string_view section, int indent) {
  const std::string pad(static_cast<size_t>(indent), ' ');
  std::string out = fmt::format(
      "{}\"type\": \"object\",\n{}\"additionalProperties\": false,\n"
      "{}\"properties\": {{",
      pad, pad, pad);
  const char* comma = "\n";
  for (const std::string_view name : keys_below(section)) {
    const KeySpec& key =
        *find_key(section.empty() ? std::string(name) : fmt::format("{}.{}", section, name));
    out += fmt::format("{}{}  {}: {{\n{}    \"description\": {},\n{}\n{}  }}", comma, pad,
                       quoted(name), pad, quoted(key.doc), type_schema(key, indent + 4), pad);
    comma = ",\n";
  }
  return out + fmt::format("\n{}}}", pad);
}

std::string type_schema(const KeySpec& key, int indent) {
  const std::string pad(static_cast<size_t>(indent), ' ');
  const std::string integer =
      fmt::format("\"type\": \"integer\", \"minimum\": {}, \"maximum\": {}", key.low, key.high);
  switch (key.type) {
    case KeyType::text:
      return pad + R"("type": "string", "minLength": 1, "maxLength": 4096)";
    case KeyType::name:
      return pad + R"("type": ["string", "integer"], "pattern": "^[A-Za-z0-9_-]{1,64}$")";
    case KeyType::integer:
      return key.automatic
                 ? fmt::format("{}\"anyOf\": [{{{}}}, {{\"const\": \"auto\"}}]", pad, integer)
                 : pad + integer;
    case KeyType::bytes:
      return fmt::format(
          "{}\"anyOf\": [{{{}}}, {{\"type\": \"string\", \"pattern\": "
          "\"^([0-9]+ *(B|KiB|MiB|GiB|TiB)?|auto)$\"}}]",
          pad, integer);
    case KeyType::duration:
      return pad + R"("type": "string", "pattern": "^[0-9]+ *(ms|s)$")";
    case KeyType::boolean:
      return pad + R"("type": "boolean")";
    case KeyType::choice: {
      std::vector<std::string> choices;
      for (const std::string_view choice : split_choices(key.choices)) {
        choices.push_back(quoted(choice));
        // An editor's YAML 1.1 reader takes these words for booleans.
        if (choice == "on") choices.push_back("true");
        if (choice == "off") choices.push_back("false");
      }
      return fmt::format("{}\"enum\": [{}]", pad, fmt::join(choices, ", "));
    }
    case KeyType::layers:
      return pad +
             R"("type": ["string", "integer"], "pattern": "^[0-9]+(-[0-9]+)?$", "minimum": 0)";
    case KeyType::device:
      return pad + R"re("type": "string", "pattern": "^(auto|cpu(:[0-9,-]+)?|cuda:[0-9]+)$")re";
    case KeyType::names:
      return pad + R"("type": "array", "items": {"type": "string"})";
    case KeyType::section:
      return object_schema(key.path, indent);
    case KeyType::stages:
      return fmt::format(
          "{}\"anyOf\": [{{{}}}, {{\n{}  \"type\": \"array\", \"minItems\": 1, "
          "\"maxItems\": {}, \"items\": {{\n{}\n{}  }}\n{}}}]",
          pad, integer, pad, key.high, object_schema("stages[]", indent + 4), pad, pad);
  }
  return {};
}

std::string values_of(const KeySpec& key) {
  std::string text(to_string(key.type));
  if (key.type == KeyType::choice)
    text = fmt::format("{}", fmt::join(split_choices(key.choices), ", "));
  if (key.type == KeyType::integer) text = fmt::format("integer in [{}, {}]", key.low, key.high);
  if (key.type == KeyType::duration)
    text = fmt::format("duration such as 50ms or 2s, in [{}ms, {}ms]", key.low, key.high);
  if (key.type == KeyType::bytes) text = "bytes such as 512MiB or 2GiB";
  return text + (key.automatic ? ", or auto" : "");
}

}  // namespace

std::string graph_json_schema() {
  return fmt::format(
      "{{\n  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n"
      "  \"title\": \"Chainpump graph file\",\n{}\n}}\n",
      object_schema("", 2));
}

std::string graph_markdown() {
  std::string out =
      "# The graph file\n\nOne YAML file describes one deployment. Everything has a default. This "
      "page is generated from the\ntable in `graph/keys.cc` (`graph_docs --markdown`); so is "
      "`schemas/graph.schema.json`.\n\nThe YAML is a plain subset: one document, UTF-8, at most "
      "256 KiB, no anchors, aliases, merge keys, tags\nor directives.\n\n"
      "`apply` says what another value takes in a service that runs (docs/live_change.md).\n\n"
      "| key | values | default | flag | `apply` | meaning |\n|---|---|---|---|---|---|\n";
  for (const KeySpec& key : graph_keys())
    out += fmt::format("| `{}` | {} | {} | {} | {} | {} |\n", key.path, values_of(key),
                       key.default_text, key.flag.empty() ? "" : fmt::format("`{}`", key.flag),
                       to_string(key.change), key.doc);
  return out;
}

std::optional<std::string> explain_key(std::string_view path) {
  const KeySpec* key = find_key(path);
  if (key == nullptr) return std::nullopt;
  std::string out = fmt::format("{}: {}\n  {}\n", key->path, values_of(*key), key->doc);
  if (!key->default_text.empty()) out += fmt::format("  default: {}\n", key->default_text);
  if (!key->flag.empty()) out += fmt::format("  flag: {}\n", key->flag);
  if (key->change != KeyChange::section)
    out += fmt::format("  to change it in a service that runs: {}\n", to_string(key->change));
  const std::string below = key->type == KeyType::stages ? "stages[]" : std::string(path);
  for (const std::string_view name : keys_below(below))
    out += fmt::format("  {}.{}\n", below, name);
  return out;
}

}  // namespace chainpump::graph
