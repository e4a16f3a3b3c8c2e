// What the coordinator does for a deployment that goes on by another plan
// (graph/changing_deployment.h).
#include <fmt/format.h>

#include "actors/coordinator_shell.h"
#include "actors/os/memory.h"

namespace chainpump::actors {

using graph::Deployment;

void CoordinatorShell::make_lanes() {
  const auto count = static_cast<size_t>(num_lanes(options_.plan));
  if (lanes_.size() > count)
    lanes_.erase(lanes_.begin() + static_cast<ptrdiff_t>(count), lanes_.end());
  for (size_t i = 0; i < count; ++i) {
    LaneLinks links(options_.plan, LaneId(static_cast<uint8_t>(i)));
    if (i < lanes_.size())
      lanes_[i].links = std::move(links);
    else
      lanes_.push_back({std::move(links)});
  }
}

std::vector<LaneFirst> CoordinatorShell::firsts() const {
  std::vector<LaneFirst> firsts;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const LaneId lane(static_cast<uint8_t>(i));
    const ProcessId first = core_.process_in(rank_at(options_.plan, lane, StageIndex(0)));
    firsts.push_back({RankId(first.value), core_.first_since(lane)});
  }
  return firsts;
}

/// Before anything is started for it: the memory that it takes is counted here, too, since whoever
/// asks may be wrong about it.
Status CoordinatorShell::may_change(const ChangePlan& change) const {
  if (!is_begun_ || !is_announced_)
    return make_error(ErrorCode::overloaded, "the coordinator has just begun");
  if (!options_.plan_files)
    return make_error(ErrorCode::unimplemented,
                      "a deployment over the nodes of a cluster cannot be changed yet while it "
                      "runs: end it, and start it with the new graph file");
  RETURN_IF_ERROR(core_.may_change(change.plan));
  if (change.spec.number != core_.plan_number())
    return make_error(ErrorCode::overloaded,
                      "somebody else has changed the deployment meanwhile: look at the difference "
                      "again");
  if (!ranks_differ(core_.plan(), change.plan)) return ok_status();
  const int64_t needed = bytes_of(change.plan);
  const int64_t there = os::usable_memory_bytes();
  if (needed <= there) return ok_status();
  return make_error(ErrorCode::no_room,
                    "the new ranks have to be there beside the old ones for a while, which takes "
                    "{} bytes more; {} are free",
                    needed, there);
}

void CoordinatorShell::on_change(ChangePlan& change, const CoordinatorActor& self) {
  change.plan.epoch = core_.plan().epoch;
  if (const Status may = may_change(change); !may.ok()) return change.reply(may.error());
  ++change.spec.number;
  if (const Status prepared = options_.plan_files->prepare(change.spec); !prepared.ok())
    return change.reply(prepared.error());
  begin_copies(change.progress);
  // Twice as many compute for a while.
  graph::Plan both = options_.plan;
  both.stages.insert(both.stages.end(), change.plan.stages.begin(), change.plan.stages.end());
  detector_.set_limits(graph::failure_limits(both));
  change_ = std::move(change);
  carry_out(core_.change(change_->plan, clock_.now()), self);
}

/// What is asked from here on is by the new plan.
void CoordinatorShell::switch_over() {
  has_switched_ = true;
  options_.plan = core_.plan();
  options_.spin_between_ops = change_->spec.spin_between_ops;
  make_lanes();
  ports_.assign(static_cast<size_t>(num_ranks(options_.plan)), nullptr);
}

void CoordinatorShell::end_change(const Deployment::Action& action) {
  ChangePlan change = *std::exchange(change_, std::nullopt);
  detector_.set_limits(graph::failure_limits(options_.plan));
  has_switched_ = false;
  if (action.kind == Deployment::ActionKind::not_changed) {
    notice(fmt::format("the deployment was not changed: {}", action.error.message));
    return change.reply(action.error);
  }
  if (const Status taken = options_.plan_files->take(change.spec.number); !taken.ok())
    notice(taken.error().message);  // whoever comes next finds it by its number
  note_ports();
  observer_.on_changed(ports_, firsts());
  tell_lanes();
  notice(fmt::format("the deployment goes on by another plan (change {})", change.spec.number));
  change.reply(Ok{});
}

}  // namespace chainpump::actors
