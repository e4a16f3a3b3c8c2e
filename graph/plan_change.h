// What it takes to go on by another plan while requests run: whether that can be, whether a rank
// notices, and which rank is to hold what of whom. What a change is made of, so that it can be
// shown before (`chainpump diff`) and carried out (graph/changing_deployment.h). Pure; any thread.
//
//   the two plans differ            what is done
//   in nothing a rank knows of      the new one is taken over in place
//   in more                         every rank of the new one is another process, which loads
//                                   beside the old ones; what those hold is copied to it (KvRoute)
//
// A lane keeps its number: what is held of it goes to the ranks that serve it in the new plan,
// each layer to whoever has that there. Lanes that are new begin with nothing; what ran in one that
// is not there any more goes on in others, with the tokens it has had.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "graph/plan.h"

namespace chainpump::graph {

/// invalid_argument, unimplemented: naming the first key that stands against it, and what to do.
Status may_change(const Plan& now, const Plan& next);

/// Whether a rank would notice: else the plan is taken over in place.
bool ranks_differ(const Plan& now, const Plan& next);

/// What a rank of the new plan takes in of one of the plan in force.
struct KvRoute {
  RankId from;
  RankId to;
  int32_t layer_begin = 0;
  int32_t layer_end = 0;
  std::vector<LaneId> lanes = {};
  bool operator==(const KvRoute&) const = default;
};
/// By the rank that takes in, then by layers.
std::vector<KvRoute> kv_routes(const Plan& now, const Plan& next);

/// What all its ranks and standbys take.
int64_t bytes_of(const Plan& plan);

}  // namespace chainpump::graph
