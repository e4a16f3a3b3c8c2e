#include "actors/lane_links.h"

#include "base/random_bits.h"

namespace chainpump::actors {

void LaneLinks::renew(PlanEpoch epoch) {
  epoch_ = epoch;
  secrets_.resize(plan_->stages.size());
  for (uint64_t& secret : secrets_) secret = random_bits();
}

StageIndex LaneLinks::after(StageIndex stage) const {
  return StageIndex((stage.value + 1) % static_cast<int32_t>(plan_->stages.size()));
}

size_t LaneLinks::before(StageIndex stage) const {
  return (static_cast<size_t>(stage.value) + plan_->stages.size() - 1) % plan_->stages.size();
}

rpc::ConnectParams LaneLinks::params(StageIndex stage, const rpc::LoadReport& next) const {
  const auto own = static_cast<size_t>(stage.value);
  return {.epoch = epoch_.value,
          .links = {{.edge = link(own).value,
                     .address = next.listen_address,
                     .port = next.listen_port,
                     .secret = secrets_[own],
                     .incarnation = epoch_.value}},
          .accept = {{.edge = link(before(stage)).value,
                      .secret = secrets_[before(stage)],
                      .incarnation = epoch_.value}}};
}

}  // namespace chainpump::actors
