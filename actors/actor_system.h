// The CAF actor system as every process here wants it: one thread for scheduled actors, which
// sleeps when idle (the `sharing` policy; `stealing` polls), and no networking.
#pragma once

#include <caf/actor_registry.hpp>
#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/thread.h"

namespace chainpump::actors {

class ActorSystem {
 public:
  /// no_room if the system refuses one of the two threads, one of actors and one of time.
  static Result<ActorSystem> create();
  caf::actor_system& system() { return parts_->system; }

 private:
  struct Parts {
    Parts() : system(configured()) {}
    caf::actor_system_config& configured() {
      config.set("scheduler.policy", caf::atom("sharing"));
      config.set("scheduler.max-threads", 1);
      return config;
    }
    caf::actor_system_config config;
    caf::actor_system system;
  };
  explicit ActorSystem(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
  std::unique_ptr<Parts> parts_;
};

/// Spawns an actor with a thread of its own; no_room if the system refuses that thread. CAF counts
/// the thread and the actor before it has them and its end waits for both, so both counts are taken
/// back; the actor's few bytes are lost, as nobody can reach them.
template <typename... Args>
auto spawn_detached(caf::actor_system& system, std::string_view purpose, Args&&... args)
    -> Result<decltype(system.spawn<caf::detached>(std::forward<Args>(args)...))> {
  try {
    return system.spawn<caf::detached>(std::forward<Args>(args)...);
  } catch (const std::system_error& refusal) {
    system.dec_detached_threads();
    system.registry().dec_running();
    return thread_error(purpose, refusal);
  }
}

}  // namespace chainpump::actors
