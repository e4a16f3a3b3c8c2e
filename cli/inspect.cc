#include "cli/inspect.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "models/gguf/gguf.h"
#include "models/tokenizer/utf8.h"

namespace chainpump::cli {
namespace {

using models::GgufFile;
using models::GgufTensor;
using models::GgufValue;
// Keys keep the order in which they are set.
using Json = nlohmann::ordered_json;

constexpr size_t kShownValues = 16;

// Strings in a file may hold anything; JSON only holds UTF-8.
Json to_json(std::string_view text) {
  const bool valid = models::find_invalid_utf8(text) == std::string_view::npos;
  return valid ? std::string(text) : models::printable(text);
}

// JSON has no infinities and no NaN: these become text.
Json to_json(double value) {
  return std::isfinite(value) ? Json(value) : Json(fmt::format("{}", value));
}

Json to_json(int64_t value) { return value; }

template <typename T>
Json to_json(const std::vector<T>& values) {
  Json shown = Json::array();
  for (size_t i = 0; i < std::min(values.size(), kShownValues); ++i)
    shown.push_back(to_json(values[i]));
  if (values.size() <= kShownValues) return shown;
  return {{"count", values.size()}, {"first", shown}};
}

Json to_json(uint64_t value) { return value; }
Json to_json(bool value) { return value; }

Json to_json(const GgufValue& value) {
  return std::visit([](const auto& held) { return to_json(held); }, value);
}

int64_t count_elements(const GgufTensor& tensor) { return tensor.cols() * tensor.rows(); }

int64_t count_parameters(const GgufFile& file) {
  int64_t parameters = 0;
  for (const GgufTensor& tensor : file.tensors()) parameters += count_elements(tensor);
  return parameters;
}

std::string json_report(const GgufFile& file) {
  Json metadata = Json::object();
  for (const auto& [key, value] : file.metadata())
    metadata[models::printable(key)] = to_json(value);
  Json tensors = Json::array();
  for (const GgufTensor& tensor : file.tensors())
    tensors.push_back({{"name", to_json(tensor.name)},
                       {"type", to_string(tensor.type)},
                       {"dims", tensor.dims},
                       {"offset", tensor.file_offset},
                       {"bytes", tensor.bytes.size()}});
  const Json report = {{"file", to_json(std::string_view(file.path().native()))},
                       {"version", file.version()},
                       {"file_bytes", file.file_bytes()},
                       {"header_bytes", file.header_bytes()},
                       {"fingerprint", fmt::format("{:016x}", file.fingerprint())},
                       {"parameters", count_parameters(file)},
                       {"metadata", metadata},
                       {"tensors", tensors}};
  return report.dump(2) + "\n";
}

// One value on one line of a terminal.
std::string to_cell(const GgufValue& value) {
  if (const auto* text = std::get_if<std::string_view>(&value)) return models::printable(*text);
  const Json json = to_json(value);
  if (json.is_object())
    return fmt::format("{} values: {}", json["count"].get<size_t>(),
                       models::printable(json["first"].dump()));
  return models::printable(json.dump());
}

std::string join_dims(const GgufTensor& tensor) {
  return fmt::format("{}", fmt::join(tensor.dims, " x "));
}

std::string table_report(const GgufFile& file) {
  std::string out = fmt::format(
      "{}\nGGUF v{}, {} bytes ({} of header), fingerprint {:016x}\n{} tensors, {} parameters\n",
      models::printable(file.path().native()), file.version(), file.file_bytes(),
      file.header_bytes(), file.fingerprint(), file.tensors().size(), count_parameters(file));
  std::map<std::string_view, int64_t> bytes_by_type;
  size_t key_width = 0;
  size_t name_width = 0;
  size_t dims_width = 0;
  for (const auto& [key, value] : file.metadata())
    key_width = std::max(key_width, models::printable(key).size());
  for (const GgufTensor& tensor : file.tensors()) {
    bytes_by_type[to_string(tensor.type)] += static_cast<int64_t>(tensor.bytes.size());
    name_width = std::max(name_width, models::printable(tensor.name).size());
    dims_width = std::max(dims_width, join_dims(tensor).size());
  }
  for (const auto& [type, bytes] : bytes_by_type)
    out += fmt::format("  {:6} {:>14}\n", type, bytes);
  out += "\nmetadata\n";
  for (const auto& [key, value] : file.metadata())
    out += fmt::format("  {:{}}  {}\n", models::printable(key), key_width, to_cell(value));
  out += "\ntensors (name, type, dimensions, bytes, offset)\n";
  for (const GgufTensor& tensor : file.tensors())
    out += fmt::format("  {:{}}  {:5} {:{}}  {:>12} {:>14}\n", models::printable(tensor.name),
                       name_width, to_string(tensor.type), join_dims(tensor), dims_width,
                       tensor.bytes.size(), tensor.file_offset);
  return out;
}

}  // namespace

Result<std::string> inspect_report(const InspectOptions& options) {
  ASSIGN_OR_RETURN(const GgufFile file, GgufFile::open(options.file));
  switch (options.output) {
    case OutputFormat::table:
      return table_report(file);
    case OutputFormat::json:
      return json_report(file);
  }
  return make_error(ErrorCode::internal, "no such output format");
}

int run_inspect(const InspectOptions& options) {
  const Result<std::string> report = inspect_report(options);
  if (!report.ok()) {
    std::fprintf(stderr, "chainpump: %s\n", report.error().message.c_str());
    return 3;
  }
  const bool written = std::fwrite(report->data(), 1, report->size(), stdout) == report->size();
  if (written && std::fflush(stdout) == 0) return 0;
  std::fprintf(stderr, "chainpump: standard output cannot be written\n");
  return 5;
}

}  // namespace chainpump::cli
