#include "models/chat/json_value.h"

#include <limits>
#include <nlohmann/json.hpp>

namespace chainpump::models::chat {
namespace {

constexpr size_t kDepthMax = 64;

/// Builds values as the parser reports events; the parser itself does not recurse.
class Builder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return add(Value(None{})); }
  bool boolean(bool value) override { return add(Value(value)); }
  bool number_integer(int64_t value) override { return add(Value(value)); }
  bool number_unsigned(uint64_t value) override {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return fail("an integer of more than 64 bits");
    return add(Value(static_cast<int64_t>(value)));
  }
  bool number_float(double value, const std::string&) override { return add(Value(value)); }
  bool string(std::string& value) override { return add(Value(Text::marked(value))); }
  bool binary(nlohmann::json::binary_t&) override { return fail("binary data"); }
  bool start_object(size_t) override { return open(true); }
  bool start_array(size_t) override { return open(false); }
  bool key(std::string& name) override {
    levels_.back().key = Value(Text::marked(name));
    return true;
  }
  bool end_object() override {
    Level level = close();
    if (levels_.empty()) {
      root = std::move(level.dict);
      return true;
    }
    return add(Value(std::move(level.dict)));
  }
  bool end_array() override {
    Level level = close();
    List list;
    list.items = std::move(level.items);
    return add(Value(std::move(list)));
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return fail(fmt::format("not JSON at byte {}", position));
  }

  Dict root;
  std::string error;

 private:
  struct Level {
    bool is_dict = false;
    Value key;
    Dict dict;
    std::vector<Value> items;
  };

  bool fail(std::string what) {
    if (error.empty()) error = std::move(what);
    return false;
  }
  bool open(bool is_dict) {
    if (levels_.size() >= kDepthMax) return fail("nested deeper than 64 levels");
    if (levels_.empty() && !is_dict) return fail("not an object");
    levels_.push_back({is_dict, Value(), {}, {}});
    return true;
  }
  Level close() {
    Level level = std::move(levels_.back());
    levels_.pop_back();
    return level;
  }
  bool add(Value value) {
    if (levels_.empty()) return fail("not an object");
    Level& level = levels_.back();
    if (!level.is_dict) {
      level.items.push_back(std::move(value));
      return true;
    }
    const std::string& name = level.key.text()->bytes;
    if (level.dict.find(name) != nullptr) return fail(fmt::format("member '{}' twice", name));
    if (level.dict.entries.size() >= 4096) return fail("an object of more than 4096 members");
    level.dict.entries.emplace_back(std::move(level.key), std::move(value));
    return true;
  }

  std::vector<Level> levels_;
};

}  // namespace

Result<Dict> parse_json_object(std::string_view json, std::string_view what) {
  Builder builder;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &builder))
    return make_error(ErrorCode::invalid_argument, "{}: {}", what, builder.error);
  return std::move(builder.root);
}

}  // namespace chainpump::models::chat
