// The supervisor: sees to it that nobody waits for an actor that is gone. It monitors the
// coordinator and the node agent; an end of either that is not orderly is reported once, with its
// reason. Restarting them is not its work: under `run` the command ends instead.
#pragma once

#include <caf/actor.hpp>
#include <functional>
#include <vector>

#include "base/result.h"

namespace chainpump::actors {

struct Supervised {
  std::string name;
  caf::actor actor;
};

/// `on_failed` runs in the supervisor's thread. The supervisor ends when all it watches have ended.
caf::actor spawn_supervisor(caf::actor_system& system, std::vector<Supervised> children,
                            std::function<void(Error)> on_failed);

}  // namespace chainpump::actors
