// What the coordinator does for a rank whose place is given to another process (graph/rank_move.h).
#include <fmt/format.h>

#include "actors/coordinator_shell.h"
#include "base/random_bits.h"

namespace chainpump::actors {

using graph::Deployment;

void CoordinatorShell::on_move(MoveRank& move, const CoordinatorActor& self) {
  if (!is_begun_)
    return move.reply(make_error(ErrorCode::overloaded, "the coordinator has just begun"));
  if (const Status may = core_.may_move(move.place); !may.ok()) return move.reply(may.error());
  begin_copies(move.progress);
  asked_ = std::move(move);
  step(Deployment::MoveRequested{asked_->place}, self);
}

/// For a move or a change.
void CoordinatorShell::begin_copies(rpc::OnMoveProgress progress) {
  copy_secret_ = random_bits();
  copies_to_.clear();
  copied_ = std::make_shared<CopiesProgress>(std::move(progress));
  copied_->progress({rpc::MoveStep::starting});
}

rpc::KvCopy CoordinatorShell::copy_of(const Deployment::Action& action) const {
  const graph::Plan& plan = core_.plan_of(action.process);
  const StageIndex stage = place_of(plan, action.place).stage;
  const graph::StagePlan& layers = plan.stages[static_cast<size_t>(stage.value)];
  // A repair of the lane would end this.
  const graph::LaneId lane = action.route ? graph::LaneId(0) : lanes_of(plan, action.place).front();
  rpc::KvCopy copy{
      .epoch = core_.epoch(lane).value,
      .incarnation = action.move,
      .secret = copy_secret_,
      .layer_begin = action.route ? action.route->layer_begin : layers.layer_begin,
      .layer_end = action.route ? action.route->layer_end : layers.layer_end,
      .address = {},
      .lanes = {},
      .part = action.part,
      .parts = action.parts,
      .context_tokens = std::max(plan.context_tokens, change_ ? change_->plan.context_tokens : 0)};
  for (const graph::LaneId each : action.route ? action.route->lanes : lanes_of(plan, action.place))
    copy.lanes.push_back(each.value);
  return copy;
}

rpc::Callback<Ok> CoordinatorShell::moved_on(const Deployment::Action& action,
                                             const CoordinatorActor& self, Deployment::Event well) {
  return [self, of = run_of(action.process), move = action.move,
          well = std::move(well)](Result<Ok> done) {
    if (done.ok()) return tell(self, well, of);
    tell(self, Deployment::MoveFailed{of.process, move, std::move(done).error()}, of);
  };
}

void CoordinatorShell::take_in(const Deployment::Action& action, const CoordinatorActor& self) {
  at(action.process)
      .port->take_in(
          copy_of(action), kCallDeadline,
          [self, of = run_of(action.process), move = action.move,
           part = action.part](Result<rpc::KvAddress> at) {
            if (at.ok())
              return tell(
                  self,
                  Deployment::TakingIn{of.process, move, part, std::move(at->address), at->port},
                  of);
            tell(self, Deployment::MoveFailed{of.process, move, std::move(at).error()}, of);
          });
}

void CoordinatorShell::copy(const Deployment::Action& action, const CoordinatorActor& self) {
  rpc::KvCopy copy = copy_of(action);
  const rpc::KvAddress& to = copies_to_[{action.newcomer, action.part}];
  copy.address = to.address;
  copy.port = to.port;
  const auto progress = [self, of = run_of(action.process), move = action.move, part = action.part,
                         copied = copied_](int64_t done, int64_t total) {
    tell(self, Deployment::CopyProgressed{of.process, move}, of);
    copied->report(part, done, total);
  };
  progress(0, 0);
  at(action.process)
      .port->copy(
          std::move(copy), kCallDeadline, progress,
          moved_on(action, self, Deployment::Copied{action.process, action.move, action.part}));
}

void CoordinatorShell::finish_copy(const Deployment::Action& action, const CoordinatorActor& self) {
  copied_->progress({rpc::MoveStep::switching});
  at(action.process)
      .port->finish_copy(kCallDeadline,
                         moved_on(action, self, Deployment::Finished{action.process, action.move}));
}

void CoordinatorShell::end_move(const Deployment::Action& action) {
  MoveRank asked = *std::exchange(asked_, std::nullopt);
  const std::string name = rank_name(options_.plan, action.place);
  if (action.kind == Deployment::ActionKind::moved) {
    notice(fmt::format("{} has moved to another process", name));
    return asked.reply(Ok{});
  }
  notice(fmt::format("{} was not moved: {}", name, action.error.message));
  asked.reply(action.error);
}

}  // namespace chainpump::actors
