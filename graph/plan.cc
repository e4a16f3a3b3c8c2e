#include "graph/plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/check.h"

namespace chainpump::graph {
namespace {

uint32_t replicas_of(const StagePlan& stage) { return static_cast<uint32_t>(stage.devices.size()); }

const StagePlan& stage_at(const Plan& plan, StageIndex stage) {
  return plan.stages[static_cast<size_t>(stage.value)];
}

}  // namespace

int32_t num_lanes(const Plan& plan) {
  uint32_t most = 1;
  for (const StagePlan& stage : plan.stages) most = std::max(most, replicas_of(stage));
  return static_cast<int32_t>(most);
}

int32_t num_ranks(const Plan& plan) {
  uint32_t sum = 0;
  for (const StagePlan& stage : plan.stages) sum += replicas_of(stage);
  return static_cast<int32_t>(sum);
}

int32_t num_processes(const Plan& plan) {
  int32_t sum = num_ranks(plan);
  for (const StagePlan& stage : plan.stages) sum += stage.standbys;
  return sum;
}

namespace {

/// The stage of a process, and which of its candidates comes first: its replica, or its number
/// after them.
std::pair<const StagePlan*, size_t> seat_of(const Plan& plan, ProcessId process) {
  const auto number = static_cast<int32_t>(process.value);
  if (number < num_ranks(plan)) {
    const RankPlace place = place_of(plan, RankId(process.value));
    return {&stage_at(plan, place.stage), static_cast<size_t>(place.replica)};
  }
  int32_t standby = number - num_ranks(plan);
  for (const StagePlan& stage : plan.stages) {
    if (standby < stage.standbys)
      return {&stage, stage.devices.size() + static_cast<size_t>(standby)};
    standby -= stage.standbys;
  }
  CHECK(false);
  return {};
}

}  // namespace

std::vector<std::string> nodes_of(const Plan& plan, ProcessId process) {
  const auto [stage, seat] = seat_of(plan, process);
  std::vector<std::string> nodes = stage->nodes;
  if (!nodes.empty())
    std::rotate(nodes.begin(), nodes.begin() + static_cast<ptrdiff_t>(seat % nodes.size()),
                nodes.end());
  return nodes;
}

int64_t bytes_of(const Plan& plan, ProcessId process) {
  const StagePlan& stage = *seat_of(plan, process).first;
  return stage.weight_bytes + stage.kv_bytes + stage.slot_bytes;
}

bool spans_nodes(const Plan& plan) {
  const std::string& first = plan.stages.front().devices.front().node;
  for (const StagePlan& stage : plan.stages)
    for (const std::string& node : stage.nodes)
      if (node != first) return true;
  return false;
}

int32_t num_compute_threads(const Plan& plan, const std::string& node) {
  int32_t sum = 0;
  for (const StagePlan& stage : plan.stages)
    for (const DevicePlan& device : stage.devices)
      if (device.node == node) sum += stage.num_threads;
  return sum;
}

int32_t num_replicas(const Plan& plan, StageIndex stage) {
  return static_cast<int32_t>(replicas_of(stage_at(plan, stage)));
}

int32_t lanes_per_rank(const Plan& plan, StageIndex stage) {
  return num_lanes(plan) / num_replicas(plan, stage);
}

int32_t lanes_per_rank_max(const Plan& plan) {
  uint32_t fewest = replicas_of(plan.stages.front());
  for (const StagePlan& stage : plan.stages) fewest = std::min(fewest, replicas_of(stage));
  return num_lanes(plan) / static_cast<int32_t>(fewest);
}

RankPlace place_of(const Plan& plan, RankId rank) {
  CHECK_LT(rank.value, static_cast<uint32_t>(num_ranks(plan)));
  uint32_t number = 0;
  for (uint32_t replica = 0;; ++replica)
    for (size_t i = 0; i < plan.stages.size(); ++i)
      if (replica < replicas_of(plan.stages[i]) && number++ == rank.value)
        return {StageIndex(static_cast<int32_t>(i)), static_cast<int32_t>(replica)};
}

RankId rank_at(const Plan& plan, LaneId lane, StageIndex stage) {
  const uint32_t replica = lane.value % replicas_of(stage_at(plan, stage));
  const auto index = static_cast<size_t>(stage.value);
  uint32_t number = 0;
  for (size_t i = 0; i < plan.stages.size(); ++i)
    // Its replicas before this one, and for the stages before also this one.
    number += std::min(replicas_of(plan.stages[i]), replica + (i < index ? 1 : 0));
  return RankId(number);
}

std::vector<LaneId> lanes_of(const Plan& plan, RankId rank) {
  const RankPlace place = place_of(plan, rank);
  std::vector<LaneId> lanes;
  for (int32_t lane = place.replica; lane < num_lanes(plan);
       lane += num_replicas(plan, place.stage))
    lanes.push_back(LaneId(static_cast<uint8_t>(lane)));
  return lanes;
}

KvBlockId first_kv_block(const Plan& plan, LaneId lane, StageIndex stage) {
  return KvBlockId(lane.value / num_replicas(plan, stage) * plan.kv.num_blocks);
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
  const std::string name =
      fmt::format("stage '{}'", stage_at(plan, place_of(plan, rank).stage).name);
  if (num_lanes(plan) == 1) return name;
  return fmt::format("{} of {}", name, lanes_text(lanes_of(plan, rank)));
}

std::string lanes_text(const std::vector<LaneId>& lanes) {
  if (lanes.size() == 1) return fmt::format("lane {}", lanes.front());
  const bool is_range = lanes.back().value - lanes.front().value + 1u == lanes.size();
  if (is_range && lanes.size() > 3)
    return fmt::format("lanes {} to {}", lanes.front(), lanes.back());
  const std::vector<LaneId> all_but_last(lanes.begin(), lanes.end() - 1);
  return fmt::format("lanes {} and {}", fmt::join(all_but_last, ", "), lanes.back());
}

}  // namespace chainpump::graph
