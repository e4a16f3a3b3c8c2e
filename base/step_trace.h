// What a rank did lately, step by step: a ring of fixed size that the stage's thread writes,
// without locks or allocation, and any other thread reads. Old events are overwritten; a reader
// learns how many it missed. Times are of the machine's monotonic clock, so that ranks of one
// machine can be put on one time line as they are.
//
// Each place of the ring carries a version that is odd while it is written; a reader that sees it
// odd or changed has lost that event and says so.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"

namespace chainpump {

/// One microbatch through one stage, in the order in which things happen. Without a wait for credit
/// credit_from == credit_until.
struct StepEvent {
  MicrobatchId microbatch;
  uint8_t lane = 0;  // whose microbatch: each lane counts its own
  int32_t num_tokens = 0;
  TimePoint received;  // at the first stage: when it was put together
  TimePoint credit_from;
  TimePoint credit_until;
  TimePoint compute_from;
  TimePoint compute_until;
  TimePoint sent;
  bool operator==(const StepEvent&) const = default;
};

/// A part of the trace: events in order, the last of them number next - 1.
struct StepEvents {
  std::vector<StepEvent> events;
  uint64_t next = 0;  // what to ask for next
  uint64_t lost = 0;  // asked for, but overwritten
  TimePoint now;      // at the rank, when this was read: for aligning clocks between machines
};

class StepTrace {
 public:
  static constexpr uint64_t kCapacity = 8192;
  static constexpr size_t kMaxEvents = 4096;  // that one read() gives

  StepTrace() : places_(kCapacity) {}

  /// One thread.
  void record(const StepEvent& event);

  /// Events from number `since` on, at most kMaxEvents. Any thread, while record() goes on.
  StepEvents read(uint64_t since) const;

 private:
  static constexpr size_t kWords = 8;
  struct Place {
    std::atomic<uint64_t> version{0};  // 2 n + 1 while event n is written, then 2 n + 2
    std::array<std::atomic<uint64_t>, kWords> words{};
  };

  std::vector<Place> places_;
  std::atomic<uint64_t> num_recorded_{0};
};

}  // namespace chainpump
