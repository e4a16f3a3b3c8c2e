#include "cli/chaos_report.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "cli/serve_figures.h"

namespace chainpump::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kFaultLinesMax = 40;

/// A standby's end is nothing that a request could notice.
std::vector<double> all_gaps(const ChaosReport& report) {
  std::vector<double> gaps;
  for (const FaultRecord& fault : report.faults)
    if (!fault.is_standby) gaps.insert(gaps.end(), fault.gaps_ms.begin(), fault.gaps_ms.end());
  return gaps;
}

std::optional<double> longest_gap(const FaultRecord& fault) {
  const auto longest = std::max_element(fault.gaps_ms.begin(), fault.gaps_ms.end());
  return longest == fault.gaps_ms.end() ? std::nullopt : std::optional(*longest);
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}
std::string or_dash(const std::optional<double>& value) {
  return value ? fmt::format("{:.0f}", *value) : "-";
}

Json fault_json(const FaultRecord& fault) {
  return {{"number", fault.number},
          {"what", fault.what},
          {"at_ms", fault.at_ms},
          {"in_recovery", fault.in_recovery},
          {"pause_ms", fault.pause_ms},
          {"victim", fault.victim},
          {"pid", fault.pid},
          {"point", or_null(fault.point)},
          {"hit", or_null(fault.is_hit)},
          {"second", or_null(fault.second)},
          {"second_pid", fault.second_pid},
          {"standby", fault.is_standby},
          {"unfinished", fault.num_unfinished},
          {"positions", fault.num_positions},
          {"went_on_ms", or_null(fault.went_on_ms)},
          {"gap_ms", or_null(longest_gap(fault))},
          {"gaps_ms", fault.gaps_ms},
          {"recomputed", fault.recomputed},
          {"recomputed_after", or_null(fault.recomputed_after)},
          {"changed_pids", fault.changed_pids},
          {"foreign_pids", fault.foreign_pids}};
}

/// Reads members that must be there; the first that is not, or is of another type, is an error.
class Reader {
 public:
  explicit Reader(const nlohmann::json& json) : json_(json) {}
  template <typename T>
  void read(const char* key, T& out) {
    const auto found = json_.is_object() ? json_.find(key) : json_.end();
    if (!json_.is_object() || found == json_.end() || !fits<T>(*found)) {
      if (status_.ok())
        status_ = make_error(ErrorCode::bad_file, "no '{}', or not what it is", key);
      return;
    }
    out = found->template get<T>();
  }
  template <typename T>
  void read(const char* key, std::optional<T>& out) {
    if (json_.is_object() && json_.contains(key) && json_[key].is_null()) return;
    read(key, out.emplace());
  }
  Status status() const { return status_; }

 private:
  template <typename T>
  static bool fits(const nlohmann::json& value) {
    if constexpr (std::is_same_v<T, bool>)
      return value.is_boolean();
    else if constexpr (std::is_integral_v<T>)
      return value.is_number_integer();
    else if constexpr (std::is_floating_point_v<T>)
      return value.is_number();
    else if constexpr (std::is_same_v<T, std::string>)
      return value.is_string();
    else
      return value.is_array() && std::all_of(value.begin(), value.end(), [](const auto& each) {
               return fits<typename T::value_type>(each);
             });
  }
  const nlohmann::json& json_;
  Status status_ = ok_status();
};

Result<FaultRecord> fault_of(const nlohmann::json& json) {
  FaultRecord fault;
  Reader reader(json);
  reader.read("number", fault.number);
  reader.read("what", fault.what);
  reader.read("at_ms", fault.at_ms);
  reader.read("in_recovery", fault.in_recovery);
  reader.read("pause_ms", fault.pause_ms);
  reader.read("victim", fault.victim);
  reader.read("pid", fault.pid);
  reader.read("point", fault.point);
  reader.read("hit", fault.is_hit);
  reader.read("second", fault.second);
  reader.read("second_pid", fault.second_pid);
  reader.read("standby", fault.is_standby);
  reader.read("unfinished", fault.num_unfinished);
  reader.read("positions", fault.num_positions);
  reader.read("went_on_ms", fault.went_on_ms);
  reader.read("gaps_ms", fault.gaps_ms);
  reader.read("recomputed", fault.recomputed);
  reader.read("recomputed_after", fault.recomputed_after);
  reader.read("changed_pids", fault.changed_pids);
  reader.read("foreign_pids", fault.foreign_pids);
  RETURN_IF_ERROR(reader.status());
  return fault;
}

/// "kill at mid-frame"; "kill, missed filling"; "stop".
std::string what_of(const FaultRecord& fault) {
  if (fault.point)
    return fmt::format("{} {} {}", fault.what, fault.is_hit == true ? "at" : "missed",
                       *fault.point);
  return fault.is_hit == false ? fault.what + " missed" : fault.what;
}

std::string victims_of(const FaultRecord& fault) {
  return fmt::format("{}{}{}{}", fault.is_standby ? "standby of " : "", fault.victim,
                     fault.second ? ", " + *fault.second : "", fault.in_recovery ? " *" : "");
}

std::string fault_line(const FaultRecord& fault) {
  std::string line = fmt::format(
      "{:>5}  {:<24}{:>8.1f}  {:<32}{:>8}{:>6}{:>8}{:>8}  {}", fault.number, what_of(fault),
      fault.at_ms / 1000, victims_of(fault), fault.pid, fault.num_unfinished,
      or_dash(fault.went_on_ms), or_dash(longest_gap(fault)), fmt::join(fault.recomputed, " "));
  for (const int32_t pid : fault.foreign_pids) line += fmt::format("  ended too: {}", pid);
  return line + "\n";
}

struct Point {
  int64_t num_tried = 0;
  int64_t num_hit = 0;
};
std::map<std::string, Point> points_of(const ChaosReport& report) {
  std::map<std::string, Point> points;
  for (const FaultRecord& fault : report.faults) {
    if (!fault.point) continue;
    ++points[*fault.point].num_tried;
    points[*fault.point].num_hit += fault.is_hit == true;
  }
  return points;
}

struct Recomputed {
  std::vector<int64_t> by_stage;
  int64_t after = 0;      // by stages after a dead one
  int64_t num_known = 0;  // deaths of which that is known
};
Recomputed recomputed_of(const ChaosReport& report) {
  Recomputed out;
  for (const FaultRecord& fault : report.faults) {
    if (out.by_stage.size() < fault.recomputed.size()) out.by_stage.resize(fault.recomputed.size());
    for (size_t i = 0; i < fault.recomputed.size(); ++i) out.by_stage[i] += fault.recomputed[i];
    out.after += fault.recomputed_after.value_or(0);
    out.num_known += fault.recomputed_after.has_value();
  }
  return out;
}

int32_t fewest_met(const ChaosReport& report) {
  const auto fewest = std::min_element(
      report.faults.begin(), report.faults.end(),
      [](const auto& a, const auto& b) { return a.num_unfinished < b.num_unfinished; });
  return fewest == report.faults.end() ? 0 : fewest->num_unfinished;
}

/// Those worth a line: all, or the ones with the longest gaps.
std::vector<FaultRecord> shown_faults(const ChaosReport& report) {
  std::vector<FaultRecord> shown = report.faults;
  if (shown.size() <= kFaultLinesMax) return shown;
  std::stable_sort(shown.begin(), shown.end(), [](const FaultRecord& a, const FaultRecord& b) {
    return longest_gap(a).value_or(0) > longest_gap(b).value_or(0);
  });
  shown.resize(kFaultLinesMax);
  return shown;
}

}  // namespace

void ChaosReport::find(std::string what) {
  if (findings.size() < kFindingsMax) findings.push_back(std::move(what));
}

void ChaosReport::add(ChaosReport part) {
  num_requests += part.num_requests;
  lost += part.lost;
  duplicated += part.duplicated;
  differing += part.differing;
  failed += part.failed;
  leaked_bytes += part.leaked_bytes;
  leaked_fds += part.leaked_fds;
  refused_frames += part.refused_frames;
  stale_frames += part.stale_frames;
  std::move(part.faults.begin(), part.faults.end(), std::back_inserter(faults));
  for (std::string& each : part.findings) find(std::move(each));
}

size_t ChaosReport::num_changed_pids() const {
  size_t count = 0;
  for (const FaultRecord& fault : faults) count += fault.changed_pids.size();
  return count;
}

size_t ChaosReport::num_foreign_pids() const {
  size_t count = 0;
  for (const FaultRecord& fault : faults) count += fault.foreign_pids.size();
  return count;
}

bool ChaosReport::is_good() const {
  return lost == 0 && duplicated == 0 && differing == 0 && failed == 0 && stale_frames == 0;
}

Json chaos_json(const ChaosReport& report) {
  const std::vector<double> gaps = all_gaps(report);
  const Recomputed recomputed = recomputed_of(report);
  Json json = {{"requests", report.num_requests},
               {"faults", report.faults.size()},
               {"lost", report.lost},
               {"duplicated", report.duplicated},
               {"differing", report.differing},
               {"failed", report.failed},
               {"gap_p50_ms", percentile(gaps, 0.5)},
               {"gap_p99_ms", percentile(gaps, 0.99)},
               {"leaked_bytes", report.leaked_bytes},
               {"leaked_fds", report.leaked_fds},
               {"met_min", fewest_met(report)},
               {"points", Json::object()},
               {"recomputed", recomputed.by_stage},
               {"recomputed_after", recomputed.after},
               {"changed_pids", report.num_changed_pids()},
               {"foreign_pids", report.num_foreign_pids()},
               {"refused_frames", report.refused_frames},
               {"stale_frames", report.stale_frames},
               {"findings", report.findings}};
  for (const auto& [name, point] : points_of(report))
    json["points"][name] = {{"tried", point.num_tried}, {"hit", point.num_hit}};
  Json& each = json["each"] = Json::array();
  for (const FaultRecord& fault : report.faults) each.push_back(fault_json(fault));
  return json;
}

Result<ChaosReport> chaos_report_of(const nlohmann::json& json) {
  ChaosReport report;
  Reader reader(json);
  reader.read("requests", report.num_requests);
  reader.read("lost", report.lost);
  reader.read("duplicated", report.duplicated);
  reader.read("differing", report.differing);
  reader.read("failed", report.failed);
  reader.read("leaked_bytes", report.leaked_bytes);
  reader.read("leaked_fds", report.leaked_fds);
  reader.read("refused_frames", report.refused_frames);
  reader.read("stale_frames", report.stale_frames);
  reader.read("findings", report.findings);
  RETURN_IF_ERROR(reader.status());
  const auto each = json.find("each");
  if (each == json.end() || !each->is_array())
    return make_error(ErrorCode::bad_file, "no 'each', or not what it is");
  for (const nlohmann::json& fault : *each) {
    ASSIGN_OR_RETURN(FaultRecord record, fault_of(fault));
    report.faults.push_back(std::move(record));
  }
  return report;
}

std::string chaos_table(const ChaosReport& report) {
  const std::vector<double> gaps = all_gaps(report);
  std::string text;
  if (!report.faults.empty())
    text = fmt::format("{:>5}  {:<24}{:>8}  {:<32}{:>8}{:>6}{:>8}{:>8}  {}\n", "fault", "what",
                       "at s", "victim", "pid", "met", "on ms", "gap ms", "again, by stage");
  for (const FaultRecord& fault : shown_faults(report)) text += fault_line(fault);
  if (report.faults.size() > kFaultLinesMax)
    text += fmt::format("(those with the longest gaps, of {}; -o json has all)\n",
                        report.faults.size());
  text += fmt::format(
      "{} requests, {} faults: {} tokens lost, {} duplicated, {} differing, {} requests failed\n"
      "gap over a fault: p50 {:.0f} ms, p99 {:.0f} ms; leaked: {} bytes, {} descriptors; "
      "{} processes ended too\n",
      report.num_requests, report.faults.size(), report.lost, report.duplicated, report.differing,
      report.failed, percentile(gaps, 0.5), percentile(gaps, 0.99), report.leaked_bytes,
      report.leaked_fds, report.num_foreign_pids());
  const Recomputed again = recomputed_of(report);
  text += fmt::format(
      "computed again, by stage: {}; by stages after a dead one: {}, in {} deaths; "
      "{} frames refused, {} stale accepted\n",
      fmt::join(again.by_stage, " "), again.after, again.num_known, report.refused_frames,
      report.stale_frames);
  for (const auto& [name, point] : points_of(report))
    text += fmt::format("at {:<16}{:>5} of {}\n", name, point.num_hit, point.num_tried);
  for (const std::string& finding : report.findings) text += finding + "\n";
  return text;
}

}  // namespace chainpump::cli
