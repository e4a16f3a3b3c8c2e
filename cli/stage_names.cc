#include "cli/stage_names.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace chainpump::cli {

bool has_lanes(const actors::RuntimeReport& report) {
  return std::any_of(report.stages.begin(), report.stages.end(), [](const actors::StageReport& s) {
    return s.lanes.size() > 1 || s.lanes.front() != graph::LaneId(0);
  });
}

std::string stage_place(const actors::StageReport& stage, bool with_lanes) {
  return with_lanes ? fmt::format("{}.{}", fmt::join(stage.lanes, "+"), stage.stage)
                    : fmt::format("{}", stage.stage);
}

size_t stage_width(const actors::RuntimeReport& report) {
  const bool with_lanes = has_lanes(report);
  size_t width = 6;
  for (const actors::StageReport& stage : report.stages)
    width = std::max(width, stage_place(stage, with_lanes).size() + 1);
  return width;
}

}  // namespace chainpump::cli
