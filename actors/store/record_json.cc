#include "actors/store/record_json.h"

#include <algorithm>

#include "actors/store/json_fields.h"

namespace chainpump::actors {
namespace {

using graph::DeploymentRecord;
using Json = nlohmann::json;

constexpr int kFormat = 3;

}  // namespace

Duration unix_minus_monotonic() {
  const Duration unix_time = std::chrono::system_clock::now().time_since_epoch();
  return unix_time - steady_clock().now().since_epoch;
}

std::string to_json_text(const DeploymentRecord& record, int64_t term,
                         Duration unix_minus_monotonic) {
  Json json = {{"format", kFormat},
               {"term", term},
               {"plan_number", record.plan_number},
               {"first_number", record.first_number},
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
  JsonFields fields;
  const auto epoch = [&](const Json& object, const char* name) {
    return PlanEpoch(fields.number(object, name));
  };
  DeploymentRecord record{.plan_number = fields.number(json, "plan_number"),
                          .first_number = fields.number(json, "first_number"),
                          .has_served = fields.flag(json, "has_served"),
                          .epoch = epoch(json, "epoch"),
                          .numerics_id = fields.text(json, "numerics_id"),
                          .lanes = {},
                          .processes = {},
                          .ends = {}};
  for (const Json& lane : fields.list(json, "lanes"))
    record.lanes.push_back({epoch(lane, "epoch"), epoch(lane, "first_since"),
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
