// One fault that a rank was told to do to itself, for `chainpump chaos`: over its control
// connection (control.capnp, Rank.arm), so by nobody who could not end it anyway. A rank's thread
// passes named points of its work, and its links ask before they send or take anything; what costs
// one predictable branch while nothing is armed.
//
//   armed with        then                                            over
//   nothing           -                                               -
//   death at a point  counts that point's passings; at the n-th it    never
//                     says so on standard error and kills itself
//   slowness          every step takes `factor` times as long         after `lasts`
//   silence           what its links send is held back, or what       after `lasts`: all that was
//                     comes is not looked at, or both                 held goes on, in order
//   damage            the n-th frame that is sent has one bit of its  when it was sent
//                     header or body turned, after its checksums
//                     were made
// Whatever is armed next takes its place: a silence ends then, too.
//
// Thread rule: one thread, the rank's.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "base/beat.h"
#include "base/clock.h"
#include "base/result.h"

namespace chainpump::transport {

/// Where a rank may die. The last three are of a repair of one of its lanes.
enum class FaultPoint : uint8_t {
  after_receive,   // a frame was taken from the input link, nothing was done with it
  before_send,     // a step's outcome is complete, and lies ready in its slot
  mid_frame,       // a frame's header is with the transport; its body waits to be asked for
  after_kv_write,  // the step's rows are in KV; they were neither logged nor sent
  fencing,         // the lane is being taken out of work
  connecting,      // its new links are being opened
  filling,         // a step was run while a sequence of the lane was not whole yet
};
inline constexpr int kNumFaultPoints = 7;
/// "after-receive", "mid-frame", ...
std::string_view to_string(FaultPoint point);

struct FaultOrder {
  enum class Kind : uint8_t { nothing, death, slowness, silence, damage };
  Kind kind = Kind::nothing;
  FaultPoint point = FaultPoint::after_receive;  // of a death
  uint32_t count = 1;                            // at which passing, or of which frame, from now on
  double factor = 1;                             // of a slowness
  Duration lasts{0};                             // slowness, silence
  bool of_input = false;                         // silence: nothing comes over any link
  bool of_output = false;                        // silence: nothing leaves over any link
  bool of_header = false;  // damage: of the header, else of the body, where it has a checksum
  bool operator==(const FaultOrder&) const = default;
};

/// invalid_argument: count 0 or above 1,000,000, factor not in [1, 1000], lasts not in (0, 60 s], a
/// silence of neither way; what the kind does not use is not looked at.
Status check_fault(const FaultOrder& order);

class ArmedFault {
 public:
  /// How it dies: `point` was passed. Must not return.
  using Death = std::function<void(FaultPoint point)>;

  /// The clock outlives it; `beat` may be null, is raised while a slow step is stretched, and
  /// outlives it too.
  explicit ArmedFault(const Clock& clock, Beat* beat = nullptr, Death death = kill_this_process);

  /// Checked.
  void arm(const FaultOrder& order);

  void pass(FaultPoint point) {
    if (order_.kind == FaultOrder::Kind::death) [[unlikely]]
      count_passing(point);
  }
  /// Whether the frame that is sent now is to be left in its middle; then die() is to be called
  /// there.
  bool dies_in_this_frame() {
    return order_.kind == FaultOrder::Kind::death && count_down(FaultPoint::mid_frame);
  }
  void die(FaultPoint point) { death_(point); }
  /// What a step took, has it taken longer: waits for the rest.
  void stretch(Duration spent) {
    if (order_.kind == FaultOrder::Kind::slowness) [[unlikely]]
      wait_for_rest(spent);
  }
  bool silences_output() { return is_silent() && order_.of_output; }
  bool silences_input() { return is_silent() && order_.of_input; }
  /// Of a frame whose header and body lie there, complete. An empty body, or one without a
  /// checksum, is spared: the header is damaged in its place.
  void damage(std::span<std::byte> header, std::span<std::byte> body, bool has_body_crc) {
    if (order_.kind == FaultOrder::Kind::damage) [[unlikely]]
      damage_if_due(header, body, has_body_crc);
  }

 private:
  [[noreturn]] static void kill_this_process(FaultPoint point);
  bool count_down(FaultPoint point);
  void count_passing(FaultPoint point);
  void wait_for_rest(Duration spent);
  void damage_if_due(std::span<std::byte> header, std::span<std::byte> body, bool has_body_crc);
  bool is_silent() {
    if (order_.kind != FaultOrder::Kind::silence) [[likely]]
      return false;
    return !is_over();
  }
  bool is_over();

  const Clock& clock_;
  Beat* const beat_;
  const Death death_;
  FaultOrder order_;
  uint32_t left_ = 0;  // of its count
  TimePoint until_;
};

}  // namespace chainpump::transport
