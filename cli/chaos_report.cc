#include "cli/chaos_report.h"

#include <algorithm>

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

Json or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(); }
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
          {"standby", fault.is_standby},
          {"unfinished", fault.num_unfinished},
          {"positions", fault.num_positions},
          {"went_on_ms", or_null(fault.went_on_ms)},
          {"gap_ms", or_null(longest_gap(fault))},
          {"gaps_ms", fault.gaps_ms},
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
  void read(const char* key, std::optional<double>& out) {
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
  reader.read("standby", fault.is_standby);
  reader.read("unfinished", fault.num_unfinished);
  reader.read("positions", fault.num_positions);
  reader.read("went_on_ms", fault.went_on_ms);
  reader.read("gaps_ms", fault.gaps_ms);
  reader.read("foreign_pids", fault.foreign_pids);
  RETURN_IF_ERROR(reader.status());
  return fault;
}

std::string fault_line(const FaultRecord& fault) {
  std::string line = fmt::format(
      "{:>5}  {:<6}{:>9.1f}  {:<32}{:>8}{:>7}{:>9}{:>9}", fault.number, fault.what,
      fault.at_ms / 1000,
      (fault.is_standby ? "standby of " : "") + fault.victim + (fault.in_recovery ? " *" : ""),
      fault.pid, fault.num_unfinished, or_dash(fault.went_on_ms), or_dash(longest_gap(fault)));
  for (const int32_t pid : fault.foreign_pids) line += fmt::format("  ended too: {}", pid);
  return line + "\n";
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
  std::move(part.faults.begin(), part.faults.end(), std::back_inserter(faults));
  for (std::string& each : part.findings) find(std::move(each));
}

size_t ChaosReport::num_foreign_pids() const {
  size_t count = 0;
  for (const FaultRecord& fault : faults) count += fault.foreign_pids.size();
  return count;
}

bool ChaosReport::is_good() const {
  return lost == 0 && duplicated == 0 && differing == 0 && failed == 0;
}

Json chaos_json(const ChaosReport& report) {
  const std::vector<double> gaps = all_gaps(report);
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
               {"foreign_pids", report.num_foreign_pids()},
               {"findings", report.findings}};
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
    text = fmt::format("{:>5}  {:<6}{:>9}  {:<32}{:>8}{:>7}{:>9}{:>9}\n", "fault", "what", "at s",
                       "victim", "pid", "open", "on ms", "gap ms");
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
  for (const std::string& finding : report.findings) text += finding + "\n";
  return text;
}

}  // namespace chainpump::cli
