#include "actors/supervisor.h"

#include <caf/actor_system.hpp>
#include <caf/event_based_actor.hpp>
#include <map>
#include <memory>

namespace chainpump::actors {
namespace {

void supervise(caf::event_based_actor* self, const std::vector<Supervised>& children,
               const std::function<void(Error)>& on_failed) {
  const auto alive = std::make_shared<std::map<caf::actor_addr, std::string>>();
  for (const Supervised& child : children) {
    self->monitor(child.actor);
    alive->emplace(child.actor.address(), child.name);
  }
  self->set_down_handler([=](const caf::down_msg& down) {
    const auto found = alive->find(down.source);
    if (found == alive->end()) return;
    if (down.reason && down.reason != caf::exit_reason::user_shutdown)
      on_failed(make_error(ErrorCode::internal, "the {} failed: {}", found->second,
                           self->system().render(down.reason)));
    alive->erase(found);
    if (alive->empty()) self->quit();
  });
  self->become([](caf::unit_t) {});  // lives by its monitors alone
}

}  // namespace

caf::actor spawn_supervisor(caf::actor_system& system, std::vector<Supervised> children,
                            std::function<void(Error)> on_failed) {
  return system.spawn(supervise, std::move(children), std::move(on_failed));
}

}  // namespace chainpump::actors
