#include "cli/batch_line.h"

#include <charconv>

#include "graph/diagnostics.h"

namespace chainpump::cli {
namespace {

namespace openai = gateway::openai;
using openai::Json;
using openai::OrderedJson;

template <typename... Args>
Error wrong(fmt::format_string<Args...> text, Args&&... args) {
  return make_error(ErrorCode::invalid_argument, text, std::forward<Args>(args)...);
}

Status check_custom_id(const Json& line) {
  const auto found = line.find("custom_id");
  if (found == line.end() || !found->is_string()) return wrong("'custom_id' must be a string");
  const size_t bytes = found->get_ref<const std::string&>().size();
  if (bytes == 0 || bytes > kCustomIdBytesMax)
    return wrong("'custom_id' has {} bytes, must have 1 to {}", bytes, kCustomIdBytesMax);
  return ok_status();
}

Result<BatchLine> read_object(Json line) {
  RETURN_IF_ERROR(check_custom_id(line));
  for (const auto& [key, value] : line.items())
    if (key != "custom_id" && key != "method" && key != "url" && key != "body")
      return wrong("there is no field '{}': a line has custom_id, method, url and body",
                   graph::shown(key));
  if (line.value("method", Json()) != "POST") return wrong("'method' must be \"POST\"");
  const auto url = line.find("url");
  const std::optional<openai::Endpoint> endpoint =
      url != line.end() && url->is_string() ? openai::endpoint_of(url->get<std::string>())
                                            : std::nullopt;
  if (!endpoint) return wrong("'url' must be \"/v1/chat/completions\" or \"/v1/completions\"");
  const auto body = line.find("body");
  if (body == line.end() || !body->is_object()) return wrong("'body' must be an object");
  return BatchLine{.custom_id = line["custom_id"].get<std::string>(),
                   .endpoint = *endpoint,
                   .body = std::move(*body)};
}

OrderedJson entry(const EntryKey& key, const std::optional<std::string>& custom_id) {
  OrderedJson json = {{"id", fmt::format("batch_req_{}_{}", key.fingerprint, key.line)}};
  json["custom_id"] = custom_id ? OrderedJson(*custom_id) : OrderedJson();
  return json;
}

std::string as_line(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

}  // namespace

ReadLine read_batch_line(std::string_view text) {
  if (text.size() > kBatchLineBytesMax)
    return {std::nullopt,
            wrong("it has {} bytes; the limit is {}", text.size(), kBatchLineBytesMax)};
  Result<Json> json = openai::parse_json(text);
  if (!json.ok()) return {std::nullopt, json.error()};
  if (!json->is_object())
    return {std::nullopt, wrong("not an object with custom_id, method, url and body")};
  std::optional<std::string> custom_id;
  if (check_custom_id(*json).ok()) custom_id = (*json)["custom_id"].get<std::string>();
  return {std::move(custom_id), read_object(std::move(*json))};
}

std::string entry_beginning(std::string_view fingerprint) {
  return fmt::format(R"({{"id":"batch_req_{}_)", fingerprint);
}

std::optional<size_t> line_of_entry(std::string_view entry, std::string_view fingerprint) {
  const std::string beginning = entry_beginning(fingerprint);
  if (!entry.starts_with(beginning) || !entry.ends_with('}')) return std::nullopt;
  entry.remove_prefix(beginning.size());
  size_t line = 0;
  const auto [end, error] = std::from_chars(entry.data(), entry.data() + entry.size(), line);
  const bool whole = error == std::errc() && line > 0 && *end == '"';
  return whole ? std::optional(line) : std::nullopt;
}

std::string answered_entry(const EntryKey& key, const std::string& custom_id, int status_code,
                           const std::string& request_id, const OrderedJson& body) {
  OrderedJson json = entry(key, custom_id);
  json["response"] = {{"status_code", status_code}, {"request_id", request_id}, {"body", body}};
  json["error"] = nullptr;
  return as_line(json);
}

std::string unread_entry(const EntryKey& key, const std::optional<std::string>& custom_id,
                         const Error& error) {
  OrderedJson json = entry(key, custom_id);
  json["response"] = nullptr;
  json["error"] = {{"code", to_string(error.code)},
                   {"message", fmt::format("line {}: {}", key.line, error.message)},
                   {"line", key.line}};
  return as_line(json);
}

std::optional<std::string> fingerprint_of_entry(std::string_view entry) {
  const Json json = Json::parse(entry, nullptr, /*allow_exceptions=*/false);
  const Json* found = &json;
  for (const char* key : {"response", "body", "system_fingerprint"}) {
    if (!found->is_object() || !found->contains(key)) return std::nullopt;
    found = &(*found)[key];
  }
  return found->is_string() ? std::optional(found->get<std::string>()) : std::nullopt;
}

}  // namespace chainpump::cli
