#include "actors/store/lane_notes.h"

#include <algorithm>

#include "actors/store/json_fields.h"

namespace chainpump::actors {

using Json = nlohmann::json;

namespace {
constexpr int64_t kDayMs = 86'400'000;
}  // namespace

std::string to_json_text(const LaneNotes& notes) {
  Json json = {
      {"numerics_id", notes.numerics_id}, {"lanes", Json::array()}, {"news", Json::array()}};
  for (const auto& lane : notes.lanes)
    json["lanes"].push_back({{"socket", lane.socket}, {"epoch", lane.epoch}, {"node", lane.node}});
  for (const auto& lane : notes.news)
    json["news"].push_back(
        {{"epoch", lane.epoch},
         {"serves", lane.serves},
         {"why", lane.why},
         {"away_for_ms", std::clamp<int64_t>(lane.away_for_ns / 1'000'000, 0, kDayMs)}});
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<LaneNotes> lane_notes_from_json(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  JsonFields fields;
  LaneNotes notes{.numerics_id = fields.text(json, "numerics_id"), .lanes = {}, .news = {}};
  for (const Json& lane : fields.list(json, "lanes"))
    notes.lanes.push_back(
        {fields.text(lane, "socket"), fields.number(lane, "epoch"), fields.text(lane, "node")});
  for (const Json& lane : fields.list(json, "news"))
    notes.news.push_back({fields.number(lane, "epoch"), fields.flag(lane, "serves"),
                          fields.text(lane, "why"),
                          int64_t{fields.number(lane, "away_for_ms")} * 1'000'000});
  if (fields.ok() && (notes.news.empty() || notes.news.size() == notes.lanes.size())) return notes;
  return make_error(ErrorCode::bad_file, "the lanes in the store are damaged");
}

}  // namespace chainpump::actors
