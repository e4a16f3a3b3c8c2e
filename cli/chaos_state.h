// What a run of `chainpump chaos` has found so far, in a file: a line that says which run it is,
// and one for each part of its report. A run that was cut short, however, goes on after the last
// whole line. One thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/unique_fd.h"
#include "cli/chaos_report.h"

namespace chainpump::cli {

class ChaosState {
 public:
  /// Makes the file, or reads it and adds to it. `run` names what must be the same. bad_file: it is
  /// of another run, or something else; no_room.
  static Result<ChaosState> open(const std::string& path, const nlohmann::ordered_json& run);
  ChaosState() = default;  // in no file

  /// Of all parts.
  const ChaosReport& report() const { return report_; }
  /// no_room.
  Status add(const ChaosReport& part);

 private:
  Status read(const std::string& text, const std::string& path, const std::string& first_line);
  Status write_line(const std::string& line);

  UniqueFd file_;
  ChaosReport report_;
};

}  // namespace chainpump::cli
