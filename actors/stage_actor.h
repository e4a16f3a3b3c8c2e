// The stage actor: a thin CAF shell round RankStage. A detached actor, because its thread computes,
// polls links and is pinned; it sends itself a tick while there is something to do, so that
// commands get their turn after every step. A scheduled actor would wait tens of microseconds for a
// thread per token.
#pragma once

#include <caf/actor_system.hpp>
#include <caf/fwd.hpp>
#include <caf/send.hpp>
#include <caf/typed_actor.hpp>
#include <memory>

#include "actors/commands.h"
#include "actors/link_board.h"
#include "actors/rank_links.h"
#include "base/beat.h"
#include "base/clock.h"
#include "base/step_trace.h"
#include "transport/waiter.h"

namespace chainpump::actors {

using TickAtom = caf::atom_constant<caf::atom("tick")>;

using StageActor = caf::typed_actor<
    caf::reacts_to<std::shared_ptr<LoadCommand>>, caf::reacts_to<std::shared_ptr<ConnectCommand>>,
    caf::reacts_to<std::shared_ptr<AttachCommand>>, caf::reacts_to<std::shared_ptr<DetachCommand>>,
    caf::reacts_to<std::shared_ptr<SubmitCommand>>, caf::reacts_to<std::shared_ptr<CancelCommand>>,
    caf::reacts_to<std::shared_ptr<StatsCommand>>, caf::reacts_to<std::shared_ptr<ShutdownCommand>>,
    caf::reacts_to<std::shared_ptr<WatchCommand>>, caf::reacts_to<std::shared_ptr<FenceCommand>>,
    caf::reacts_to<std::shared_ptr<ResumeCommand>>, caf::reacts_to<std::shared_ptr<ArmCommand>>,
    caf::reacts_to<std::shared_ptr<TakeInCommand>>, caf::reacts_to<std::shared_ptr<CopyCommand>>,
    caf::reacts_to<std::shared_ptr<FinishCopyCommand>>, caf::reacts_to<TickAtom>>;

/// How others talk to a stage actor: a message, and a nudge if it sleeps on its links. Any thread.
/// A command that the actor no longer takes answers by its Reply's end.
class StageHandle {
 public:
  StageHandle(StageActor actor, std::shared_ptr<transport::Waiter> waiter,
              std::shared_ptr<const StepTrace> trace, std::shared_ptr<const Beat> beat,
              std::shared_ptr<const LinkBoard> links)
      : actor_(std::move(actor)),
        waiter_(std::move(waiter)),
        trace_(std::move(trace)),
        beat_(std::move(beat)),
        links_(std::move(links)) {}

  template <typename Command>
  void tell(Command command) const {
    caf::anon_send(actor_, std::make_shared<Command>(std::move(command)));
    waiter_->wake();
  }
  /// Ends the actor once it is done with what it computes now.
  void kill() const {
    caf::anon_send_exit(actor_, caf::exit_reason::kill);
    waiter_->wake();
  }
  const StageActor& actor() const { return actor_; }
  /// What the stage does, to be read beside it.
  const StepTrace& trace() const { return *trace_; }
  /// Whether its computing thread gets on.
  const Beat& beat() const { return *beat_; }
  /// What comes and goes over its links.
  const LinkBoard& links() const { return *links_; }

 private:
  StageActor actor_;
  std::shared_ptr<transport::Waiter> waiter_;
  std::shared_ptr<const StepTrace> trace_;
  std::shared_ptr<const Beat> beat_;
  std::shared_ptr<const LinkBoard> links_;
};

/// no_room if the system refuses the thread.
Result<StageHandle> spawn_stage(caf::actor_system& system, std::shared_ptr<LoopbackHub> hub,
                                const Clock& clock);

}  // namespace chainpump::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::LoadCommand>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::ConnectCommand>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::AttachCommand>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::DetachCommand>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::SubmitCommand>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::CancelCommand>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::StatsCommand>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::ShutdownCommand>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::WatchCommand>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::FenceCommand>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::ResumeCommand>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::ArmCommand>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::TakeInCommand>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::CopyCommand>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::shared_ptr<chainpump::actors::FinishCopyCommand>)
