// What a simulated coordinator does with each action of the core.
#include <algorithm>

#include "tests/sim/sim_coordinator.h"

namespace chainpump::sim {

using Kind = graph::Deployment::ActionKind;

template <typename Answer>
void SimCoordinator::ask(ProcessId id, std::function<void(SimProcess&, Reply<Answer>)> what,
                         std::function<void(uint32_t run, Result<Answer>)> then, bool reliable) {
  SimProcess* const process = at(id).is;
  const uint32_t run = at(id).run;
  if (process == nullptr) return;
  call<Answer>(
      world_, {.delay = scenario_.call_delay, .fault_in = reliable ? 0 : scenario_.call_fault_in},
      *process, [process, what](Reply<Answer> reply) { what(*process, std::move(reply)); },
      [this, then, run](Result<Answer> answer) {
        if (!alive_) return;
        post([then, run, answer = std::move(answer)]() mutable { then(run, std::move(answer)); });
      });
}

void SimCoordinator::tell_failed(ProcessId id, const Error& error) {
  if (error.code == ErrorCode::cancelled) return;
  if (error.code == ErrorCode::disconnected) return step(Deployment::Unreachable{id, error});
  step(Deployment::Failed{id, error});
}

void SimCoordinator::carry_out(const Deployment::Action& action) {
  check_.action(action, number_, core_);
  switch (action.kind) {
    case Kind::spawn:
      at(action.process) = {.run = at(action.process).run + 1};
      detector_.forget(action.process);
      world_.say("coordinator {} starts process {}.{}", number_, action.process,
                 at(action.process).run);
      return agent_.spawn(action.process, at(action.process).run, [this](SimProcess& process) {
        post([this, &process] { on_started(process); });
      });
    case Kind::load:
      return load(action);
    case Kind::fence:
      return fence(action);
    case Kind::connect:
      return connect(action);
    case Kind::resume:
      return resume(action);
    case Kind::serve:
      announced_ = true;
      for (uint32_t i = 0; i < processes_.size(); ++i)
        if (processes_[i].is_loaded) detector_.watch(ProcessId(i), world_.now());
      return tell_firsts();
    case Kind::lane_serving:
      return lane_serving(action);
    case Kind::repairing:
      return world_.say("coordinator {}: {}; it is being repaired", number_, action.error.message);
    case Kind::fail:
      failed_ = true;
      world_.say("coordinator {}: failed: {}", number_, action.error.message);
      return observer_.on_failed(action.error);
    case Kind::shutdown:
      return shutdown(action.process);
    case Kind::kill:
      detector_.forget(action.process);
      world_.say("coordinator {} has process {} killed", number_, action.process);
      return agent_.kill(action.process);
    case Kind::take_in:
      return ask_of_move(
          action, [](SimProcess& own, Reply<Ok> reply) { own.take_in(std::move(reply)); },
          Deployment::TakingIn{action.process, action.move, action.part});
    case Kind::copy:
      return ask_of_move(
          action,
          [to = at(action.newcomer).is](SimProcess& own, Reply<Ok> reply) {
            own.copy(*to, std::move(reply));
          },
          Deployment::Copied{action.process, action.move, action.part});
    case Kind::finish:
      return ask_of_move(
          action, [](SimProcess& own, Reply<Ok> reply) { own.finish_copy(std::move(reply)); },
          Deployment::Finished{action.process, action.move});
    case Kind::moved:
    case Kind::not_moved:
      return world_.say(
          "coordinator {}: rank {} {}", number_, action.place,
          action.kind == Kind::moved ? "has moved" : "has not moved: " + action.error.message);
    case Kind::ready:
    case Kind::switched:
    case Kind::changed:
    case Kind::not_changed:
      return say_of_change(action);
    case Kind::stopped:
      return;
  }
}

void SimCoordinator::say_of_change(const Deployment::Action& action) {
  if (action.kind == Kind::ready)
    return world_.fail("a deployment tells its shell that it is ready");
  world_.say("coordinator {}: the plan {}", number_,
             action.kind == Kind::switched  ? "is another from here on"
             : action.kind == Kind::changed ? "has changed"
                                            : "has not changed: " + action.error.message);
}

void SimCoordinator::ask_of_move(const Deployment::Action& action,
                                 std::function<void(SimProcess&, Reply<Ok>)> what,
                                 Deployment::Event well) {
  ask<Ok>(action.process, std::move(what),
          [this, action, well = std::move(well)](uint32_t run, Result<Ok> done) {
            if (!is_there(action.process, run)) return;
            if (done.ok()) return step(well);
            step(Deployment::MoveFailed{action.process, action.move, std::move(done).error()});
          });
}

// -------------------------------------------------------------------------------- a process

void SimCoordinator::on_exited(ProcessId id, uint32_t run, const std::string& how) {
  if (at(id).run != run) return;
  step(Deployment::Exited{id, how});
}

void SimCoordinator::on_started(SimProcess& process) {
  if (at(process.id()).run != process.run()) return;
  at(process.id()).is = &process;
  if (!core_.is_wanted(process.id())) return agent_.kill(process.id());
  greet(process.id());
}

void SimCoordinator::greet(ProcessId id) {
  ask<Ok>(
      id, [](SimProcess&, Reply<Ok> reply) { reply(Ok{}); },
      [this, id](uint32_t run, Result<Ok> greeted) {
        if (!is_there(id, run)) return;
        if (!greeted.ok()) return tell_failed(id, greeted.error());
        step(Deployment::Greeted{id});
      });
}

void SimCoordinator::load(const Deployment::Action& action) {
  ask<Deployment::Loaded>(
      action.process,
      [place = action.place](SimProcess& process, Reply<Deployment::Loaded> reply) {
        process.load(place, std::move(reply));
      },
      [this, id = action.process](uint32_t run, Result<Deployment::Loaded> loaded) {
        if (!is_there(id, run)) return;
        if (!loaded.ok()) return tell_failed(id, loaded.error());
        on_loaded(id, std::move(*loaded));
      });
}

void SimCoordinator::on_loaded(ProcessId id, Deployment::Loaded loaded) {
  at(id).is_loaded = true;
  watch(id);
  if (core_.phase() == Deployment::Phase::serving) detector_.watch(id, world_.now());
  step(loaded);
}

void SimCoordinator::watch(ProcessId id) {
  at(id).is_watched = true;
  ask<Ok>(
      id, [](SimProcess& process, Reply<Ok> reply) { process.watch(std::move(reply)); },
      [this, id](uint32_t run, Result<Ok> end) {
        if (!is_there(id, run)) return;
        at(id).is_watched = false;
        if (!end.ok()) step(Deployment::LinkBroken{id, end.error()});
      },
      true);
}

// A rank that has not loaded may be busy with that for long and has nothing to close.
void SimCoordinator::shutdown(ProcessId id) {
  detector_.forget(id);
  SimProcess* const process = at(id).is;
  if (process == nullptr || !at(id).is_loaded) return agent_.kill(id);
  world_.after(scenario_.call_delay, [this, process] {
    process->when_awake([this, process] { agent_.end(*process, "exit 0"); });
  });
}

// -------------------------------------------------------------------------------- a lane

void SimCoordinator::fence(const Deployment::Action& action) {
  Lane& lane = lanes_[action.lane.value];
  if (lane.fence_epoch != action.epoch && world_.plant != Plant::holdings_kept)
    lane.held_before = std::exchange(lane.holdings, {});
  lane.fence_epoch = action.epoch;
  if (world_.plant == Plant::fence_forgotten && number_ > 0)
    return post([this, action] {
      step(Deployment::Fenced{action.process, action.lane, action.epoch});
    });
  ask<graph::StageHoldings>(
      action.process,
      [id = action.lane, epoch = action.epoch](SimProcess& process,
                                               Reply<graph::StageHoldings> reply) {
        if (SimStage* const stage = process.stage(id)) return stage->fence(epoch, std::move(reply));
        reply(make_error(ErrorCode::invalid_argument, "does not serve lane {}", id));
      },
      [this, action](uint32_t run, Result<graph::StageHoldings> holdings) {
        if (!is_there(action.process, run)) return;
        if (!holdings.ok()) return tell_failed(action.process, holdings.error());
        Lane& of = lanes_[action.lane.value];
        PlanEpoch epoch = action.epoch;
        if (world_.plant == Plant::old_answer_believed) epoch = core_.epoch(action.lane);
        if (of.fence_epoch == epoch) of.holdings[action.process] = std::move(*holdings);
        step(Deployment::Fenced{action.process, action.lane, epoch});
      });
}

void SimCoordinator::answered(const Deployment::Action& action, uint32_t run,
                              const Result<Ok>& done) {
  if (!is_there(action.process, run)) return;
  if (!done.ok() && done.error().code == ErrorCode::cancelled) return;  // a new epoch began
  if (!done.ok())
    return step(Deployment::CallFailed{action.process, action.lane, action.epoch, done.error()});
  if (action.kind == Kind::connect)
    return step(Deployment::Connected{action.process, action.lane, action.epoch});
  step(Deployment::Resumed{action.lane, action.epoch});
}

void SimCoordinator::connect(const Deployment::Action& action) {
  ask<Ok>(
      action.process,
      [id = action.lane, epoch = action.epoch](SimProcess& process, Reply<Ok> reply) {
        if (SimStage* const stage = process.stage(id))
          return stage->connect(epoch, std::move(reply));
        reply(make_error(ErrorCode::invalid_argument, "does not serve lane {}", id));
      },
      [this, action](uint32_t run, Result<Ok> done) { answered(action, run, done); });
}

void SimCoordinator::resume(const Deployment::Action& action) {
  const Lane& lane = lanes_[action.lane.value];
  std::vector<graph::StageHoldings> stages;
  const auto take = [&](const std::map<ProcessId, graph::StageHoldings>& held) {
    for (const auto& [id, holdings] : held) stages.push_back(holdings);
  };
  if (lane.fence_epoch == action.epoch) {
    std::map<ProcessId, graph::StageHoldings> in_place = lane.holdings;
    std::erase_if(in_place, [&](const auto& entry) {
      return std::none_of(scenario_.plan.stages.begin(), scenario_.plan.stages.end(),
                          [&](const graph::StagePlan& stage) {
                            const RankId place = rank_at(scenario_.plan, action.lane, stage.index);
                            return core_.process_in(place) == entry.first;
                          });
    });
    take(in_place);
  }
  if (world_.plant == Plant::lost_said_held) take(lane.held_before);
  ask<Ok>(
      action.process,
      [id = action.lane, epoch = action.epoch, stages](SimProcess& process, Reply<Ok> reply) {
        if (SimStage* const stage = process.stage(id))
          return stage->resume(epoch, stages, std::move(reply));
        reply(make_error(ErrorCode::invalid_argument, "does not serve lane {}", id));
      },
      [this, action](uint32_t run, Result<Ok> done) {
        const bool again = !done.ok() && world_.plant == Plant::resumed_again &&
                           done.error().code == ErrorCode::disconnected;
        if (again && is_there(action.process, run)) return resume(action);
        answered(action, run, done);
      });
}

void SimCoordinator::lane_serving(const Deployment::Action& action) {
  world_.say("coordinator {}: lane {} serves in epoch {}", number_, action.lane, action.epoch);
  if (announced_) observer_.on_first(action.lane, {action.process, action.first_since});
  for (const graph::StagePlan& stage : scenario_.plan.stages) {
    const ProcessId id = core_.process_in(rank_at(scenario_.plan, action.lane, stage.index));
    if (!at(id).is_watched) watch(id);
  }
}

void SimCoordinator::tell_firsts() {
  if (!announced_) return;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const LaneId lane(static_cast<uint8_t>(i));
    observer_.on_first(lane, {core_.process_in(rank_at(scenario_.plan, lane, StageIndex(0))),
                              core_.first_since(lane)});
  }
}

}  // namespace chainpump::sim
