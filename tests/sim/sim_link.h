// One direction of a link in virtual time, with its account of credits at both ends and what is on
// the wire between them. Frames arrive whole, in order, after a delay with jitter, or after a
// stall. A link is one incarnation of an edge of a lane:
//
//   open     close() by the sender            closed, at the receiver when all before it has come,
//                                             at the sender when the receiver has said so, or,
//                                             failed, after a second
//            drop() of an end                 failed at the other end, some milliseconds later
//
// What is on the wire of a link that is over may arrive yet, at the next link of that edge. Each
// frame has the real header (transport/frame.h), by which the receiver refuses it. One thread.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/scenario.h"
#include "tests/sim/sim_world.h"
#include "transport/credit_ledger.h"
#include "transport/frame.h"

namespace chainpump::sim {

/// A microbatch or a step result, encoded.
struct SimFrame {
  uint64_t microbatch = 0;
  std::vector<std::byte> bytes;
  std::vector<uint64_t> forgotten;  // requests cancelled since the frame before it
  bool settled = true;              // every stage has been told of every sequence
  std::array<std::byte, transport::kFrameHeaderBytes> header{};  // the link's own
};

class SimLink : public std::enable_shared_from_this<SimLink> {
 public:
  struct Options {
    std::string name;
    EdgeId edge;
    PlanEpoch epoch;
    int32_t credits = 1;
    bool returns = false;  // its frames are results
  };
  enum class State : uint8_t { open, closing, closed, failed };
  /// What each end is told. `awake`: when its process can listen.
  struct End {
    std::function<void(std::function<void()>)> awake;
    std::function<void()> on_ended;
    std::function<void()> on_credit = {};         // at the sender: one came back
    std::function<void(SimFrame)> on_frame = {};  // at the receiver: holds a slot until release()
  };

  SimLink(SimWorld& world, const Scenario& scenario, Options options, End sender, End receiver,
          std::function<void(SimFrame)> on_stray);

  bool may_acquire() const { return output_ == State::open && sender_.available() > 0; }
  void acquire() { sender_.acquire(); }
  /// With a credit that was acquired. Void if the link is over.
  void send(SimFrame frame);
  void close();
  bool leads_on() const { return output_ == State::open; }
  bool output_ended() const { return output_ == State::closed || output_ == State::failed; }
  bool input_ended() const { return input_ != State::open; }
  /// The receiver lets go of this frame's slot.
  void release(const SimFrame& frame);
  /// An end's process has died, or has forgotten the link.
  void drop_output();
  void drop_input();
  /// It fails at both ends.
  void break_down();
  /// A frame that an earlier link of this edge sent has come out here.
  void receive_stray(const SimFrame& frame);

  const Options& options() const { return options_; }
  /// Nothing is on the way and every credit is at the sender.
  bool at_rest() const { return sender_.available() == sender_.granted(); }
  /// The sums of both ends and the wire.
  void check_books() const;

 private:
  bool is_whole() const { return output_ == State::open && input_ == State::open && !cut_; }
  void deliver(TimePoint when, SimFrame frame, bool again);
  void arrive(SimFrame frame, bool again);
  bool accepts(const SimFrame& frame) const;
  void fail(State& state, const End& end);

  SimWorld& world_;
  const Scenario& scenario_;
  const Options options_;
  const End sender_end_;
  const End receiver_end_;
  const std::function<void(SimFrame)> on_stray_;
  State output_ = State::open;
  State input_ = State::open;
  bool cut_ = false;  // nothing more arrives
  transport::CreditLedger sender_;
  transport::CreditLedger receiver_;
  TimePoint last_arrival_;
  TimePoint last_credit_;
  int32_t frames_on_wire_ = 0;
  int32_t credits_on_wire_ = 0;
  uint64_t num_sent_ = 0;
  uint64_t num_arrived_ = 0;
};

}  // namespace chainpump::sim
