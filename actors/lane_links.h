// What the ranks of one lane are told to open and to accept: its links in a circle, each with a
// secret that is new whenever they are made anew, and the epoch as its incarnation, which no other
// coordinator ever uses. One thread, the coordinator's.
#pragma once

#include <vector>

#include "graph/plan.h"
#include "transport/rpc/control_types.h"

namespace chainpump::actors {

namespace rpc = transport::rpc;

class LaneLinks {
 public:
  /// The plan outlives this. There are no links before renew().
  LaneLinks(const graph::Plan& plan, graph::LaneId lane) : plan_(&plan), lane_(lane) {}

  /// Links of this epoch in place of those before.
  void renew(PlanEpoch epoch);
  PlanEpoch epoch() const { return epoch_; }
  /// Whom the stage sends to.
  StageIndex after(StageIndex stage) const;
  /// Both ends of the stage; `next` is what the stage after it has said when it had loaded.
  rpc::ConnectParams params(StageIndex stage, const rpc::LoadReport& next) const;

 private:
  size_t before(StageIndex stage) const;
  EdgeId link(size_t stage) const { return link_of(*plan_, lane_, plan_->edges[stage].id); }

  const graph::Plan* plan_;
  graph::LaneId lane_;
  PlanEpoch epoch_;                // 0: none
  std::vector<uint64_t> secrets_;  // of the link from each stage
};

}  // namespace chainpump::actors
