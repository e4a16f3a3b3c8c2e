// What `chainpump chaos` has found, as a table for people or JSON for programs (its keys are an
// API). A run that is resumed is a sum of parts: its state file holds one per line. Pure; one
// thread.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace chainpump::cli {

struct FaultRecord {
  uint64_t number = 0;  // from 0
  std::string what;     // "kill"
  double at_ms = 0;     // since the load began
  bool in_recovery = false;
  double pause_ms = 0;                // of a stop
  std::string victim;                 // "stage 'front'", "the coordinator"
  int32_t pid = 0;                    // the victim's
  std::optional<std::string> point;   // where it was to die, or, in its repair, the second
  std::optional<bool> is_hit;         // of what a rank was told to do to itself
  std::optional<std::string> second;  // that was killed, too
  int32_t second_pid = 0;
  bool is_standby = false;  // it served no lane, as far as is known
  int32_t num_unfinished = 0;
  int64_t num_positions = 0;          // of those that had tokens: what a stage may have held
  std::optional<double> went_on_ms;   // until requests went on; none: not within the patience
  std::vector<double> gaps_ms;        // of each request that had tokens before and after
  std::vector<int32_t> changed_pids;  // processes that ended since, the victims among them
  std::vector<int32_t> foreign_pids;  // of these those to which nothing was done
  /// By stage, until the next fault: positions that were computed again.
  std::vector<int64_t> recomputed;
  /// Of them those of the stages after a dead one, where it was the only one.
  std::optional<int64_t> recomputed_after;
  bool operator==(const FaultRecord&) const = default;
};

struct ChaosReport {
  int64_t num_requests = 0;  // that have ended
  int64_t lost = 0;          // tokens, as the next two
  int64_t duplicated = 0;
  int64_t differing = 0;
  int64_t failed = 0;  // requests
  int64_t leaked_bytes = 0;
  int64_t leaked_fds = 0;
  int64_t refused_frames = 0;
  int64_t stale_frames = 0;  // that were accepted all the same
  std::vector<FaultRecord> faults;
  std::vector<std::string> findings;  // what is behind the counts, at most kFindingsMax

  static constexpr size_t kFindingsMax = 100;
  void find(std::string what);
  /// What was found later.
  void add(ChaosReport part);
  /// Every answer was right.
  bool is_good() const;
  size_t num_changed_pids() const;
  size_t num_foreign_pids() const;
};

/// {"requests", "faults", "lost", "duplicated", "differing", "failed", "gap_p50_ms", "gap_p99_ms",
/// "leaked_bytes", "leaked_fds", "met_min", "points": {name: {"tried", "hit"}}, "recomputed": [by
/// stage], "recomputed_after", "changed_pids", "foreign_pids", "refused_frames", "stale_frames",
/// "findings": [text], "each": [{"number", "what", "at_ms", "in_recovery", "pause_ms", "victim",
/// "pid", "point" (as others: or null), "hit", "second", "second_pid", "standby", "unfinished",
/// "positions", "went_on_ms", "gap_ms" (the longest), "gaps_ms", "recomputed": [by stage],
/// "recomputed_after", "changed_pids", "foreign_pids"}]}
nlohmann::ordered_json chaos_json(const ChaosReport& report);
/// Its inverse; bad_file.
Result<ChaosReport> chaos_report_of(const nlohmann::json& json);
std::string chaos_table(const ChaosReport& report);

}  // namespace chainpump::cli
