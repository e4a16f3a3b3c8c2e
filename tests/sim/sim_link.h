// One direction of a link in virtual time, with its account of credits at both ends and what is on
// the wire between them. Frames arrive whole, in order, after a delay with jitter, or after a
// stall; a closed link delivers nothing more. A link is one incarnation of an edge. One thread.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/plant.h"
#include "tests/sim/scenario.h"
#include "tests/sim/virtual_time.h"
#include "transport/credit_ledger.h"

namespace chainpump::sim {

/// A microbatch or a step result, encoded.
struct SimFrame {
  uint64_t id = 0;  // of its microbatch
  std::vector<std::byte> bytes;
  std::vector<uint64_t> forgotten;  // seeds of requests cancelled since the frame before it
  bool settled = true;              // every stage has been told of every sequence
};

/// What every part of a run shares.
struct SimWorld {
  SimWorld(uint64_t seed, std::FILE* file, Plant what) : random(seed), trace(file), plant(what) {}
  Random random;
  EventQueue events;
  Trace trace;
  Plant plant;
  std::string wrong;  // the first thing that was; the run ends

  template <typename... Args>
  void fail(fmt::format_string<Args...> text, Args&&... args) {
    if (!wrong.empty()) return;
    wrong = fmt::format(text, std::forward<Args>(args)...);
    trace.line(events.now(), "WRONG: {}", wrong);
  }
};

class SimLink : public std::enable_shared_from_this<SimLink> {
 public:
  /// `on_frame`: one has arrived and holds a slot until release(). `on_credit`: one came back.
  /// The first frame to come has the number after `last_id`.
  SimLink(SimWorld& world, const Scenario& scenario, std::string name, int32_t credits,
          uint64_t last_id, std::function<void(SimFrame)> on_frame,
          std::function<void()> on_credit);

  bool may_acquire() const { return sender_.available() > 0; }
  void acquire() { sender_.acquire(); }
  /// With a credit that was acquired.
  void send(SimFrame frame);
  /// The receiver lets go of this frame's slot.
  void release(const SimFrame& frame);
  void close() { closed_ = true; }
  bool closed() const { return closed_; }
  bool is_empty() const { return frames_on_wire_ == 0 && receiver_.in_flight() == 0; }
  /// Nothing is on the way and every credit is at the sender.
  bool at_rest() const { return sender_.available() == sender_.granted(); }
  /// The sums of both ends and the wire.
  void check_books() const;

 private:
  void deliver(TimePoint when, SimFrame frame, bool again);

  SimWorld& world_;
  const Scenario& scenario_;
  std::string name_;
  transport::CreditLedger sender_;
  transport::CreditLedger receiver_;
  std::function<void(SimFrame)> on_frame_;
  std::function<void()> on_credit_;
  TimePoint last_arrival_;
  TimePoint last_credit_;
  int32_t frames_on_wire_ = 0;
  int32_t credits_on_wire_ = 0;
  uint64_t last_id_;  // that arrived
  bool closed_ = false;
};

}  // namespace chainpump::sim
