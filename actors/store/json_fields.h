// Fields of JSON objects that come from a store, each checked: what is missing or of another type
// is nothing, and remembered. For actors/store/*.cc; one thread.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

namespace chainpump::actors {

class JsonFields {
 public:
  using Json = nlohmann::json;
  static constexpr size_t kRowsMax = 65536;  // of any list: more than a service has processes

  bool flag(const Json& object, const char* name) {
    const Json* found = find(object, name);
    if (found && found->is_boolean()) return found->get<bool>();
    return fail(false);
  }
  uint32_t number(const Json& object, const char* name) {
    const Json* found = find(object, name);
    if (found && found->is_number_unsigned() &&
        found->get<uint64_t>() <= std::numeric_limits<uint32_t>::max())
      return found->get<uint32_t>();
    return fail(0u);
  }
  std::string text(const Json& object, const char* name) {
    const Json* found = find(object, name);
    if (found && found->is_string()) return found->get<std::string>();
    return fail(std::string());
  }
  const Json& list(const Json& object, const char* name) {
    static const Json kNone = Json::array();
    const Json* found = find(object, name);
    if (found && found->is_array() && found->size() <= kRowsMax) return *found;
    fail(false);
    return kNone;
  }
  /// Whether all were there.
  bool ok() const { return ok_; }

 private:
  static const Json* find(const Json& object, const char* name) {
    if (!object.is_object()) return nullptr;
    const auto found = object.find(name);
    return found == object.end() ? nullptr : &*found;
  }
  template <typename T>
  T fail(T nothing) {
    ok_ = false;
    return nothing;
  }

  bool ok_ = true;
};

}  // namespace chainpump::actors
