// The CAF actor system as every process here wants it: one thread for scheduled actors, which
// sleeps when idle (the `sharing` policy; `stealing` polls), and no networking.
#pragma once

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>

namespace chainpump::actors {

class ActorSystem {
 public:
  ActorSystem() : config_(), system_(configured()) {}
  caf::actor_system& system() { return system_; }

 private:
  caf::actor_system_config& configured() {
    config_.set("scheduler.policy", caf::atom("sharing"));
    config_.set("scheduler.max-threads", 1);
    return config_;
  }
  caf::actor_system_config config_;
  caf::actor_system system_;
};

}  // namespace chainpump::actors
