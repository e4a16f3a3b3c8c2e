#include "actors/stage_actor.h"

#include <caf/typed_event_based_actor.hpp>

#include "actors/actor_system.h"
#include "actors/rank_stage.h"

namespace chainpump::actors {
namespace {

StageActor::behavior_type stage_behavior(StageActor::pointer self, std::shared_ptr<LoopbackHub> hub,
                                         std::shared_ptr<transport::Waiter> waiter,
                                         std::shared_ptr<StepTrace> trace,
                                         std::shared_ptr<Beat> beat,
                                         std::shared_ptr<LinkBoard> links, const Clock* clock) {
  // Made here, in the actor's own thread, and gone with the behaviour, in the same thread.
  const auto stage =
      std::make_shared<RankStage>(std::move(hub), std::move(waiter), std::move(trace),
                                  std::move(beat), *clock, std::move(links));
  const auto ticking = std::make_shared<bool>(false);
  const auto settle = [=] {
    if (stage->gone()) return self->quit();
    if (!stage->ticking() || *ticking) return;
    *ticking = true;
    self->send(self, TickAtom::value);
  };
  return {
      [=](std::shared_ptr<LoadCommand>& c) { stage->load(std::move(*c)), settle(); },
      [=](std::shared_ptr<ConnectCommand>& c) { stage->connect(std::move(*c)), settle(); },
      [=](std::shared_ptr<AttachCommand>& c) { stage->attach(std::move(*c)), settle(); },
      [=](std::shared_ptr<DetachCommand>& c) { stage->detach(*c), settle(); },
      [=](std::shared_ptr<SubmitCommand>& c) { stage->submit(std::move(*c)), settle(); },
      [=](std::shared_ptr<CancelCommand>& c) { stage->cancel(std::move(*c)), settle(); },
      [=](std::shared_ptr<StatsCommand>& c) { stage->stats(std::move(*c)), settle(); },
      [=](std::shared_ptr<ShutdownCommand>& c) { stage->shutdown(std::move(*c)), settle(); },
      [=](std::shared_ptr<WatchCommand>& c) { stage->watch(std::move(*c)), settle(); },
      [=](std::shared_ptr<FenceCommand>& c) { stage->fence(std::move(*c)), settle(); },
      [=](std::shared_ptr<ResumeCommand>& c) { stage->resume(std::move(*c)), settle(); },
      [=](std::shared_ptr<ArmCommand>& c) { stage->arm(std::move(*c)), settle(); },
      [=](std::shared_ptr<TakeInCommand>& c) { stage->take_in(std::move(*c)), settle(); },
      [=](std::shared_ptr<CopyCommand>& c) { stage->copy(std::move(*c)), settle(); },
      [=](std::shared_ptr<FinishCopyCommand>& c) { stage->finish_copy(std::move(*c)), settle(); },
      [=](TickAtom) {
        *ticking = false;
        stage->tick();
        settle();
      },
  };
}

}  // namespace

Result<StageHandle> spawn_stage(caf::actor_system& system, std::shared_ptr<LoopbackHub> hub,
                                const Clock& clock) {
  auto waiter = std::make_shared<transport::Waiter>(transport::WaiterOptions{});
  auto trace = std::make_shared<StepTrace>();
  auto beat = std::make_shared<Beat>();
  auto links = std::make_shared<LinkBoard>();
  ASSIGN_OR_RETURN(const StageActor actor,
                   spawn_detached(system, "the thread of a stage", stage_behavior, std::move(hub),
                                  waiter, trace, beat, links, &clock));
  return StageHandle(actor, std::move(waiter), std::move(trace), std::move(beat), std::move(links));
}

}  // namespace chainpump::actors
