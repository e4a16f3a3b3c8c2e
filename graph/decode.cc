#include "graph/decode.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

namespace chainpump::graph {
namespace {

constexpr size_t kTextMax = 4096;
constexpr size_t kNameMax = 64;
constexpr int kCoreMax = 4095;
constexpr int64_t kLayerMax = 1 << 20;

/// Digits only, so that signs, 1e309, nan and 0x10 are errors and not surprises.
std::optional<int64_t> digits(std::string_view text) {
  int64_t value = 0;
  if (text.empty() || text[0] == '-') return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<int64_t> byte_count(std::string_view text) {
  const size_t end = text.find_first_not_of("0123456789");
  const auto number = digits(text.substr(0, end));
  if (!number || end == std::string_view::npos) return number;
  std::string_view unit = text.substr(end);
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  constexpr std::string_view kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  for (int i = 0; i < 5; ++i)
    if (unit == kUnits[i])
      return *number > (int64_t{1} << 60 >> (10 * i)) ? std::nullopt
                                                      : std::optional(*number << (10 * i));
  return std::nullopt;
}

std::optional<int64_t> milliseconds(std::string_view text) {
  const size_t end = text.find_first_not_of("0123456789");
  const auto number = digits(text.substr(0, end));
  if (!number || end == std::string_view::npos) return std::nullopt;
  std::string_view unit = text.substr(end);
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  if (unit == "ms") return number;
  if (unit == "s" && *number <= std::numeric_limits<int64_t>::max() / 1000) return *number * 1000;
  return std::nullopt;
}

/// FIRST-LAST.
std::optional<std::pair<int64_t, int64_t>> pair_of(std::string_view text) {
  const size_t dash = text.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const auto begin = digits(text.substr(0, dash));
  const auto end = digits(text.substr(dash + 1));
  if (!begin || !end) return std::nullopt;
  return std::pair(*begin, *end);
}

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= kNameMax &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_';
         });
}

bool read_cores(std::string_view list, std::vector<int>& cores) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    const std::string_view part = list.substr(0, comma);
    const auto one = digits(part);
    const auto range = one ? std::pair(*one, *one) : pair_of(part);
    if (!range || range->first > range->second || range->second > kCoreMax) return false;
    for (int64_t core = range->first; core <= range->second; ++core) {
      if (std::find(cores.begin(), cores.end(), core) != cores.end()) return false;
      cores.push_back(static_cast<int>(core));
    }
    if (comma == std::string_view::npos) return true;
    list.remove_prefix(comma + 1);
  }
  return false;
}

bool read_device(std::string_view text, DeviceRequest& device) {
  if (text == "auto") return true;
  if (text.starts_with("cuda:")) {
    device.kind = DeviceRequest::Kind::cuda;
    const auto index = digits(text.substr(5));
    device.cuda_index = static_cast<int>(index.value_or(0));
    return index && *index <= 1023;
  }
  device.kind = DeviceRequest::Kind::cpu;
  if (text == "cpu") return true;
  return text.starts_with("cpu:") && read_cores(text.substr(4), device.cores);
}

class ValueReader {
 public:
  ValueReader(const KeySpec& key, const YamlNode& node, Diagnostics& out)
      : key_(key), node_(node), out_(out) {}

  bool read(Values::Value& value) {
    value.at = node_.at;
    if (key_.type == KeyType::names) return read_names(value);
    if (node_.kind != YamlNode::Kind::scalar)
      return wrong(fmt::format("takes one value ({})", to_string(key_.type)));
    if (node_.empty) return wrong("has no value");
    value.text = node_.text;
    return read_scalar(value);
  }

 private:
  bool wrong(std::string_view what) {
    out_.add(node_.at, fmt::format("{} {}", key_.path, what));
    return false;
  }
  bool must_be(std::string_view what) {
    return wrong(fmt::format("is '{}', must be {}", shown(node_.text), what));
  }

  bool read_scalar(Values::Value& value) {
    const std::string_view text = node_.text;
    switch (key_.type) {
      case KeyType::text:
        return (!text.empty() && text.size() <= kTextMax) || must_be("1 to 4096 bytes of text");
      case KeyType::name:
        return is_name(text) || must_be("1 to 64 letters, digits, '-' or '_'");
      case KeyType::integer:
        return read_number(digits(text), value,
                           fmt::format("an integer in [{}, {}]", key_.low, key_.high));
      case KeyType::bytes:
        return read_number(byte_count(text), value,
                           "a number of bytes such as 512MiB or 2GiB, at most 1024TiB");
      case KeyType::duration:
        return read_number(
            milliseconds(text), value,
            fmt::format("a duration such as 50ms or 2s, in [{}ms, {}ms]", key_.low, key_.high));
      case KeyType::boolean:
        value.number = text == "true";
        return text == "true" || text == "false" || must_be("true or false");
      case KeyType::choice:
        return read_choice(value);
      case KeyType::layers: {
        const auto one = digits(text);
        const auto range = one ? std::pair(*one, *one) : pair_of(text);
        if (!range || range->first > range->second || range->second > kLayerMax)
          return must_be("FIRST-LAST, both included (0-9 is ten layers)");
        value.layers =
            LayerRange{static_cast<int32_t>(range->first), static_cast<int32_t>(range->second + 1)};
        return true;
      }
      case KeyType::device:
        return read_device(text, value.device) ||
               must_be("auto, cpu, cpu:0-1,4 or cuda:N" + hint(text, {"auto", "cpu", "cuda:0"}));
      case KeyType::names:
      case KeyType::section:
      case KeyType::stages:
        break;
    }
    return wrong("takes no single value");
  }

  bool read_number(std::optional<int64_t> number, Values::Value& value, std::string_view bounds) {
    if (key_.automatic && node_.text == "auto") return true;
    if (!number || *number < key_.low || *number > key_.high)
      return must_be(fmt::format("{}{}", bounds, key_.automatic ? " or auto" : ""));
    value.number = *number;
    return true;
  }

  bool read_choice(Values::Value& value) {
    const auto choices = split_choices(key_.choices);
    const auto it = std::find(choices.begin(), choices.end(), node_.text);
    value.number = it - choices.begin();
    return it != choices.end() ||
           must_be(fmt::format("one of {}{}", fmt::join(choices, ", "), hint(node_.text, choices)));
  }

  bool read_names(Values::Value& value) {
    if (node_.kind != YamlNode::Kind::sequence) return wrong("takes a list of names");
    for (const YamlNode& item : node_.items) {
      if (item.kind != YamlNode::Kind::scalar || !is_name(item.text)) {
        out_.add(item.at, fmt::format("{} holds something that is not a name", key_.path));
        return false;
      }
      value.names.emplace_back(item.text, item.at);
    }
    return true;
  }

  const KeySpec& key_;
  const YamlNode& node_;
  Diagnostics& out_;
};

}  // namespace

void decode_mapping(const YamlNode& node, std::string_view section, Values& values,
                    const YamlNode** stages, Diagnostics& out) {
  const std::string where = section.empty() ? "the file" : std::string(section);
  if (node.kind != YamlNode::Kind::mapping) {
    out.add(node.at, fmt::format("{} must be a mapping of keys to values", where));
    return;
  }
  for (const YamlEntry& entry : node.entries) {
    const std::string path = section.empty() ? entry.key : fmt::format("{}.{}", section, entry.key);
    // A dot within a key must not reach into another section.
    const bool is_word = entry.key.find_first_of(".[") == std::string::npos;
    const KeySpec* key = is_word ? find_key(path) : nullptr;
    if (key == nullptr) {
      out.add(entry.at, fmt::format("unknown key '{}' in {}{}", shown(entry.key), where,
                                    out.full() ? "" : hint(entry.key, keys_below(section))));
    } else if (key->type == KeyType::stages) {
      *stages = &entry.value;
    } else if (key->type == KeyType::section) {
      decode_mapping(entry.value, path, values, stages, out);
    } else {
      Values::Value value;
      if (ValueReader(*key, entry.value, out).read(value))
        values.by_path.emplace(path, std::move(value));
    }
  }
}

}  // namespace chainpump::graph
