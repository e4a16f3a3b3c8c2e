// What a deployment's next coordinator has to know of the last one. It is written down before what
// follows from it is done (actors/store), so that no epoch is ever used twice, whenever a
// coordinator dies:
//
//   written                            before                  because the next one
//   the highest epoch, each lane's     fence, connect          begins above it
//   who stands by, who has a place     connect                 asks each for its own place
//   who has whose place after a move    connect                 ends who has none
//   another plan is in force            connect                 ends whose number is none of its
//   a lane serves, and since when its  its clients are told    takes it over as it is, if all its
//   first rank is that                                         ranks say the same
//   ends within the window             spawn                   goes on counting
//
// Nothing here is about a token. What is not written, the agent and the ranks are asked: which
// processes live, and what each has loaded and linked. Plain data.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "graph/plan.h"

namespace chainpump::graph {

struct DeploymentRecord {
  struct Lane {
    PlanEpoch epoch;
    PlanEpoch first_since;
    bool first_is_new = false;  // the first rank is another since then, and no client was told
    bool serving = false;
    bool operator==(const Lane&) const = default;
  };
  struct Process {
    RankId place;  // that it has, stands by for, or had
    bool is_standby = false;
    bool is_spare = false;
    bool is_left_over = false;  // of a move, when it is in no place: to be ended
    bool is_loaded = false;
    bool operator==(const Process&) const = default;
  };
  uint32_t plan_number = 0;   // of changes that led to the plan (graph/changing_deployment.h)
  uint32_t first_number = 0;  // of its processes
  bool has_served = false;
  PlanEpoch epoch;  // the highest that any lane had
  std::string numerics_id;
  std::vector<Lane> lanes;
  std::vector<Process> processes;  // by number
  std::vector<TimePoint> ends;     // on this machine's monotonic clock, in order
  bool operator==(const DeploymentRecord&) const = default;
};

/// How many numbers processes have: those of the plan's, and one for whom a rank is moved to.
int32_t num_numbers(const Plan& plan);

/// bad_file: not of a deployment of this plan.
Status check(const DeploymentRecord& record, const Plan& plan);

}  // namespace chainpump::graph
