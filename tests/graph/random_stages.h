// Stages for the random histories of deployments: how many, and which have replicas or standbys.
#pragma once

#include <fmt/format.h>

#include <random>

#include "graph/plan.h"

namespace chainpump::graph {

inline Plan random_stages(std::mt19937& random, int max_stages) {
  const auto pick = [&](int below) {
    return static_cast<int>(random() % static_cast<uint32_t>(below));
  };
  Plan plan;
  plan.stages.resize(static_cast<size_t>(1 + pick(max_stages)));
  const int lanes = 1 + pick(3);
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    StagePlan& stage = plan.stages[i];
    stage.index = StageIndex(static_cast<int32_t>(i));
    stage.name = fmt::format("s{}", i);
    stage.devices.resize(pick(2) == 0 ? 1 : static_cast<size_t>(lanes));
    if (stage.devices.size() == 1) stage.standbys = pick(3);
  }
  return plan;
}

}  // namespace chainpump::graph
