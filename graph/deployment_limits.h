// How long a deployment's processes and lanes may take for what (graph/deployment.h). Plain data.
#pragma once

#include "base/clock.h"
#include "graph/lane_repair.h"
#include "graph/rank_move.h"

namespace chainpump::graph {

struct DeploymentLimits {
  Duration greet_max = std::chrono::seconds(10);
  Duration load_silence_max = std::chrono::seconds(30);  // without progress
  Duration connect_max = std::chrono::seconds(30);       // at the start
  Duration leave_max = std::chrono::seconds(2);
  Duration end_max = std::chrono::seconds(30);  // from the kill to the exit
  Duration delay_max =
      std::chrono::minutes(5);  // of a rank whose node is away; standbys wait longer
  LaneRepairLimits repair;
  MoveLimits move;
};

}  // namespace chainpump::graph
