// How tables name the stages of a deployment that may have several lanes. Pure; any thread.
#pragma once

#include <string>

#include "actors/runtime.h"

namespace chainpump::cli {

/// Whether names must say which lane.
bool has_lanes(const actors::RuntimeReport& report);
/// "1"; where there are several lanes "0.1" for stage 1 of lane 0, and "0+2.1" for that of lanes 0
/// and 2 on one rank.
std::string stage_place(const actors::StageReport& stage, bool with_lanes);
/// The width of a column of them.
size_t stage_width(const actors::RuntimeReport& report);

}  // namespace chainpump::cli
