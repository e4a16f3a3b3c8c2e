#include "tests/sim/sim_link.h"

#include <algorithm>
#include <utility>

namespace chainpump::sim {

using namespace std::chrono_literals;
using transport::WireKind;

SimLink::SimLink(SimWorld& world, const Scenario& scenario, Options options, End sender,
                 End receiver, std::function<void(SimFrame)> on_stray)
    : world_(world),
      scenario_(scenario),
      options_(std::move(options)),
      sender_end_(std::move(sender)),
      receiver_end_(std::move(receiver)),
      on_stray_(std::move(on_stray)),
      sender_(options_.credits),
      receiver_(options_.credits) {}

// -------------------------------------------------------------------------------- frames

void SimLink::send(SimFrame frame) {
  if (output_ != State::open) return;
  sender_.send();
  transport::encode_frame_header(
      {.kind = options_.returns ? WireKind::result : WireKind::activation,
       .epoch = options_.epoch,
       .incarnation = LinkIncarnation(options_.epoch.value),
       .edge = options_.edge,
       .metadata_bytes = static_cast<uint32_t>(frame.bytes.size()),
       .sequence = num_sent_++,
       .microbatch = MicrobatchId(frame.microbatch)},
      frame.header);
  TimePoint when = world_.now() + scenario_.delay + world_.random.up_to(scenario_.jitter);
  const bool stalls = scenario_.stall_in > 0 && world_.random.chance(scenario_.stall_in);
  if (stalls) {
    when = when + world_.random.up_to(scenario_.stall_max);
    world_.say("{} stalls", options_.name);
  }
  last_arrival_ = when = std::max(when, last_arrival_ + 1ns);
  if (stalls && world_.plant == Plant::frame_run_twice) deliver(when + 1ns, frame, true);
  ++frames_on_wire_;
  deliver(when, std::move(frame), false);
}

void SimLink::deliver(TimePoint when, SimFrame frame, bool again) {
  world_.events.at(when, [self = shared_from_this(), again, frame = std::move(frame)]() mutable {
    if (self->cut_) return self->on_stray_(std::move(frame));
    self->receiver_end_.awake([self, again, frame = std::move(frame)]() mutable {
      self->arrive(std::move(frame), again);
    });
  });
}

/// It begins to arrive a microsecond before it has arrived.
void SimLink::arrive(SimFrame frame, bool again) {
  if (cut_ || input_ != State::open) return;
  if (!accepts(frame))
    return world_.fail("{}: frame {} is refused", options_.name, frame.microbatch);
  if (receiver_.available() == 0)
    return world_.fail("{}: frame {} arrives, and no slot is free", options_.name,
                       frame.microbatch);
  if (!again) --frames_on_wire_;
  ++num_arrived_;
  receiver_.arriving();
  receiver_.arrived();
  world_.say("{}: frame {} arrives", options_.name, frame.microbatch);
  receiver_end_.on_frame(std::move(frame));
}

bool SimLink::accepts(const SimFrame& frame) const {
  return transport::check_frame_header(
             frame.header,
             {.epoch = options_.epoch,
              .incarnation = LinkIncarnation(options_.epoch.value),
              .edge = options_.edge,
              .kinds = kind_bit(options_.returns ? WireKind::result : WireKind::activation),
              .metadata_bytes_max = 1 << 20,
              .sequence_begin = num_arrived_,
              .sequence_end = num_arrived_ + 1})
      .ok();
}

void SimLink::receive_stray(const SimFrame& frame) {
  if (cut_ || input_ != State::open) return;
  ++world_.stale_refused;
  world_.say("{}: an old frame {} comes", options_.name, frame.microbatch);
  const bool believed = world_.plant == Plant::stale_epoch_returned && options_.returns;
  if (believed) return receiver_end_.on_frame(frame);
  if (accepts(frame))
    world_.fail("{}: takes frame {} of an earlier link", options_.name, frame.microbatch);
}

void SimLink::release(const SimFrame& frame) {
  if (cut_ || input_ != State::open) return;
  if (receiver_.held() == 0) return;  // planted: it came by no way that gives credits
  receiver_.released();
  if (world_.plant == Plant::credit_lost_on_cancel && !frame.forgotten.empty()) return;
  ++credits_on_wire_;
  last_credit_ = std::max(world_.now() + scenario_.delay + world_.random.up_to(scenario_.jitter),
                          last_credit_);
  world_.events.at(last_credit_, [self = shared_from_this()] {
    self->sender_end_.awake([self] {
      if (self->cut_) return;
      --self->credits_on_wire_;
      self->sender_.returned(1);
      if (self->output_ == State::open) self->sender_end_.on_credit();
    });
  });
}

// -------------------------------------------------------------------------------- the end

void SimLink::close() {
  if (output_ != State::open) return;
  output_ = State::closing;
  const auto self = shared_from_this();
  last_arrival_ = std::max(world_.now() + scenario_.delay, last_arrival_ + 1ns);
  world_.events.at(last_arrival_, [self] {
    self->receiver_end_.awake([self] {
      if (self->cut_ || self->input_ != State::open) return;
      self->input_ = State::closed;
      self->receiver_end_.on_ended();
      self->world_.after(self->scenario_.delay, [self] {
        self->sender_end_.awake([self] {
          if (self->output_ != State::closing) return;
          self->output_ = State::closed;
          self->sender_end_.on_ended();
        });
      });
    });
  });
  world_.after(1s, [self] {
    if (self->output_ == State::closing) self->fail(self->output_, self->sender_end_);
  });
}

void SimLink::fail(State& state, const End& end) {
  if (state == State::closed || state == State::failed) return;
  state = State::failed;
  end.awake([self = shared_from_this(), &end] { end.on_ended(); });
}

/// What was sent may arrive until then.
void SimLink::drop_output() {
  if (output_ == State::failed) return;
  output_ = State::failed;
  world_.after(world_.random.up_to(4ms), [self = shared_from_this()] {
    self->cut_ = true;
    self->fail(self->input_, self->receiver_end_);
  });
}

void SimLink::drop_input() {
  cut_ = true;
  if (input_ == State::failed) return;
  input_ = State::failed;
  world_.after(world_.random.up_to(4ms),
               [self = shared_from_this()] { self->fail(self->output_, self->sender_end_); });
}

void SimLink::break_down() {
  cut_ = true;
  fail(output_, sender_end_);
  fail(input_, receiver_end_);
}

void SimLink::check_books() const {
  if (!is_whole()) return;
  const int32_t away = frames_on_wire_ + receiver_.held() + credits_on_wire_;
  const int32_t free_slots =
      sender_.available() + sender_.held() + frames_on_wire_ + credits_on_wire_;
  if (sender_.in_flight() != away || receiver_.available() != free_slots)
    world_.fail(
        "{}: credits are not conserved: the sender has {} away, but {} frames and {} credits are "
        "on the wire, the receiver has {} held, {} free",
        options_.name, sender_.in_flight(), frames_on_wire_, credits_on_wire_, receiver_.held(),
        receiver_.available());
}

}  // namespace chainpump::sim
