#include "actors/store/record_json.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

namespace chainpump::actors {
namespace {

using graph::DeploymentRecord;
using Json = nlohmann::json;

constexpr int kFormat = 2;
constexpr size_t kRowsMax = 65536;  // of any list: more than a service may have processes

/// Reads fields, and remembers whether one was wrong.
class Fields {
 public:
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
    return fail(uint32_t{0});
  }
  PlanEpoch epoch(const Json& object, const char* name) { return PlanEpoch(number(object, name)); }
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
  template <typename T>
  T fail(T nothing) {
    ok_ = false;
    return nothing;
  }
  bool ok() const { return ok_; }

 private:
  const Json* find(const Json& object, const char* name) {
    if (!object.is_object()) return nullptr;
    const auto found = object.find(name);
    return found == object.end() ? nullptr : &*found;
  }
  bool ok_ = true;
};

}  // namespace

Duration unix_minus_monotonic() {
  const Duration unix_time = std::chrono::system_clock::now().time_since_epoch();
  return unix_time - steady_clock().now().since_epoch;
}

std::string to_json_text(const DeploymentRecord& record, Duration unix_minus_monotonic) {
  Json json = {{"format", kFormat},
               {"has_served", record.has_served},
               {"epoch", record.epoch.value},
               {"numerics_id", record.numerics_id},
               {"lanes", Json::array()},
               {"processes", Json::array()},
               {"ends_unix_ns", Json::array()}};
  for (const DeploymentRecord::Lane& lane : record.lanes)
    json["lanes"].push_back({{"epoch", lane.epoch.value},
                             {"first_since", lane.first_since.value},
                             {"first_is_new", lane.first_is_new},
                             {"serving", lane.serving}});
  for (const DeploymentRecord::Process& process : record.processes)
    json["processes"].push_back({{"place", process.place.value},
                                 {"is_standby", process.is_standby},
                                 {"is_spare", process.is_spare},
                                 {"is_left_over", process.is_left_over},
                                 {"is_loaded", process.is_loaded}});
  for (const TimePoint& end : record.ends)
    json["ends_unix_ns"].push_back((end.since_epoch + unix_minus_monotonic).count());
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<DeploymentRecord> record_from_json(const std::string& text, Duration unix_minus_monotonic,
                                          TimePoint now) {
  const auto bad = [](const char* what) {
    return make_error(ErrorCode::bad_file, "the record in the store is damaged: {}", what);
  };
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return bad("it is no object");
  if (json.value("format", Json()) != Json(kFormat)) return bad("it is of another release");
  Fields fields;
  DeploymentRecord record{.has_served = fields.flag(json, "has_served"),
                          .epoch = fields.epoch(json, "epoch"),
                          .numerics_id = fields.text(json, "numerics_id"),
                          .lanes = {},
                          .processes = {},
                          .ends = {}};
  for (const Json& lane : fields.list(json, "lanes"))
    record.lanes.push_back({fields.epoch(lane, "epoch"), fields.epoch(lane, "first_since"),
                            fields.flag(lane, "first_is_new"), fields.flag(lane, "serving")});
  for (const Json& process : fields.list(json, "processes"))
    record.processes.push_back(
        {RankId(fields.number(process, "place")), fields.flag(process, "is_standby"),
         fields.flag(process, "is_spare"), fields.flag(process, "is_left_over"),
         fields.flag(process, "is_loaded")});
  for (const Json& end : fields.list(json, "ends_unix_ns")) {
    if (!end.is_number_integer()) return bad("an end");
    const int64_t unix_ns = end.get<int64_t>();
    if (unix_ns < 0) return bad("an end");
    record.ends.push_back(std::min(now, TimePoint{Duration(unix_ns) - unix_minus_monotonic}));
  }
  if (!fields.ok()) return bad("a field");
  return record;
}

}  // namespace chainpump::actors
