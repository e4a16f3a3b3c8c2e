#include "graph/plan.h"

#include <fmt/format.h>

namespace chainpump::graph {

int32_t num_lanes(const Plan& plan) {
  return plan.stages.empty() ? 1 : static_cast<int32_t>(plan.stages.front().devices.size());
}

int32_t num_ranks(const Plan& plan) {
  return num_lanes(plan) * static_cast<int32_t>(plan.stages.size());
}

RankId rank_at(const Plan& plan, LaneId lane, StageIndex stage) {
  const auto num_stages = static_cast<uint32_t>(plan.stages.size());
  return RankId(lane.value * num_stages + static_cast<uint32_t>(stage.value));
}

LaneId lane_of(const Plan& plan, RankId rank) {
  return LaneId(static_cast<uint8_t>(rank.value / plan.stages.size()));
}

StageIndex stage_of(const Plan& plan, RankId rank) {
  return StageIndex(static_cast<int32_t>(rank.value % plan.stages.size()));
}

EdgeId link_of(const Plan& plan, LaneId lane, EdgeId edge) {
  return EdgeId(lane.value * static_cast<uint32_t>(plan.edges.size()) + edge.value);
}

std::vector<int> first_cores(const Plan& plan) {
  std::vector<int> cores;
  for (const DevicePlan& device : plan.stages.front().devices)
    cores.insert(cores.end(), device.cores.begin(), device.cores.end());
  return cores;
}

std::string rank_name(const Plan& plan, RankId rank) {
  const StagePlan& stage = plan.stages[static_cast<size_t>(stage_of(plan, rank).value)];
  std::string name = fmt::format("stage '{}'", stage.name);
  return num_lanes(plan) > 1 ? fmt::format("{} of lane {}", name, lane_of(plan, rank)) : name;
}

}  // namespace chainpump::graph
