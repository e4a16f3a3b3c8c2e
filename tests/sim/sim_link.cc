#include "tests/sim/sim_link.h"

#include <algorithm>
#include <utility>

namespace chainpump::sim {

using namespace std::chrono_literals;

SimLink::SimLink(SimWorld& world, const Scenario& scenario, std::string name, int32_t credits,
                 uint64_t last_id, std::function<void(SimFrame)> on_frame,
                 std::function<void()> on_credit)
    : world_(world),
      scenario_(scenario),
      name_(std::move(name)),
      sender_(credits),
      receiver_(credits),
      on_frame_(std::move(on_frame)),
      on_credit_(std::move(on_credit)),
      last_id_(last_id) {}

void SimLink::send(SimFrame frame) {
  sender_.send();
  TimePoint when = world_.events.now() + scenario_.delay + world_.random.up_to(scenario_.jitter);
  const bool stalls = scenario_.stall_in > 0 && world_.random.chance(scenario_.stall_in);
  if (stalls) {
    when = when + world_.random.up_to(scenario_.stall_max);
    world_.trace.line(world_.events.now(), "{} stalls", name_);
  }
  last_arrival_ = when = std::max(when, last_arrival_ + 1ns);
  if (stalls && world_.plant == Plant::frame_run_twice) deliver(when + 1ns, frame, true);
  ++frames_on_wire_;
  deliver(when, std::move(frame), false);
}

/// It begins to arrive a microsecond before it has arrived.
void SimLink::deliver(TimePoint when, SimFrame frame, bool again) {
  const auto self = shared_from_this();
  world_.events.at(when, [self, again, frame = std::move(frame)]() mutable {
    SimLink& link = *self;
    if (link.closed_) return;
    if (link.receiver_.available() == 0)
      return link.world_.fail("{}: frame {} arrives, and no slot is free", link.name_, frame.id);
    if (!again) --link.frames_on_wire_;
    link.receiver_.arriving();
    link.world_.events.after(1us, [self, frame = std::move(frame)]() mutable {
      SimLink& there = *self;
      if (there.closed_) return;
      there.receiver_.arrived();
      if (frame.id != there.last_id_ + 1)
        return there.world_.fail("{}: frame {} arrives after {}", there.name_, frame.id,
                                 there.last_id_);
      there.last_id_ = frame.id;
      there.world_.trace.line(there.world_.events.now(), "{}: frame {} arrives", there.name_,
                              frame.id);
      there.on_frame_(std::move(frame));
    });
  });
}

void SimLink::release(const SimFrame& frame) {
  if (closed_) return;
  receiver_.released();
  if (world_.plant == Plant::credit_lost_on_cancel && !frame.forgotten.empty()) return;
  ++credits_on_wire_;
  const TimePoint when =
      world_.events.now() + scenario_.delay + world_.random.up_to(scenario_.jitter);
  last_credit_ = std::max(when, last_credit_);
  world_.events.at(last_credit_, [self = shared_from_this()] {
    if (self->closed_) return;
    --self->credits_on_wire_;
    self->sender_.returned(1);
    self->on_credit_();
  });
}

void SimLink::check_books() const {
  if (closed_) return;
  const int32_t away =
      frames_on_wire_ + receiver_.in_flight() + receiver_.held() + credits_on_wire_;
  const int32_t free_slots =
      sender_.available() + sender_.held() + frames_on_wire_ + credits_on_wire_;
  if (sender_.in_flight() != away || receiver_.available() != free_slots)
    world_.fail(
        "{}: credits are not conserved: the sender has {} away, but {} frames and {} credits are "
        "on "
        "the wire, the receiver has {} arriving, {} held, {} free",
        name_, sender_.in_flight(), frames_on_wire_, credits_on_wire_, receiver_.in_flight(),
        receiver_.held(), receiver_.available());
}

}  // namespace chainpump::sim
