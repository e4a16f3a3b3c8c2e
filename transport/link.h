// A link carries frames one way between two ranks, with credits coming back the other way: one
// SendLink at the upstream end, one ReceiveLink at the downstream end. Implementations: UCX
// (transport/ucx/) and in-process loopback (transport/loopback.h), one conformance suite over both.
//
// Slots are fixed registered buffers, decided when the link is made. The receiver owns `credits` of
// them; the sender spends one credit per frame and gets it back when the receiver lets the frame
// go. Sum of granted = available + in flight + held, CHECKed in production too.
// A link never resends: when it dies its frames are void and a new incarnation starts afresh.
//
// Thread rule: each end belongs to one thread, which calls progress(); nothing here blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"

namespace chainpump::transport {

class ArmedFault;

enum class FrameKind : uint8_t { activation = 1, result = 2, kv = 3 };  // what users of links send

enum class LinkState : uint8_t { connecting, open, closing, closed, failed };

struct LinkOptions {
  EdgeId edge;
  PlanEpoch epoch;
  LinkIncarnation incarnation{1};
  uint64_t secret = 0;  // both ends are told it by the control plane; a hello without it is refused
  int32_t credits = 4;
  int64_t slot_payload_bytes = 0;
  int64_t slot_metadata_bytes = 0;
  bool checksum_payload = true;
  /// What this end may have been told to do to itself (transport/armed_fault.h), or null. Outlives
  /// it.
  ArmedFault* fault = nullptr;
};

/// Monotonic counters and the last seconds' latency; for reports.
struct LinkStats {
  std::string transport;  // what UCX chose, e.g. "tcp/lo", "posix+cma"; "loopback"
  uint64_t frames = 0;
  uint64_t payload_bytes = 0;
  uint64_t metadata_bytes = 0;
  uint64_t payload_copies_bytes = 0;  // bytes that our own code copied (not UCX, not the kernel)
  uint64_t refused_frames = 0;
  double latency_p50_us = 0;  // sent -> received, both clocks of one machine
  double latency_p99_us = 0;
  Duration blocked_on_credit{0};  // sender: time with work to send and no credit
  // For whoever compares both ends (graph/link_watch.h): frames one way, credits the other.
  uint64_t spoken = 0;
  uint64_t heard = 0;
};

/// A free send slot together with the credit to send it; letting it go gives both back.
class SendSlot {
 public:
  virtual ~SendSlot() = default;
  /// Where the payload is written: slot_payload_bytes bytes, 64-byte aligned.
  virtual std::span<std::byte> payload() = 0;
};

class SendLink {
 public:
  virtual ~SendLink() = default;
  virtual LinkState state() const = 0;
  virtual const Error& error() const = 0;  // valid in state failed
  /// A slot if the link is open and a credit and a free slot are there, else null.
  virtual std::unique_ptr<SendSlot> try_acquire() = 0;
  /// Sends the slot's first payload_bytes with `metadata` in one frame. The slot must come from
  /// this link. disconnected if the link has failed (the frame is lost).
  virtual Status send(std::unique_ptr<SendSlot> slot, FrameKind kind, MicrobatchId microbatch,
                      std::span<const std::byte> metadata, int64_t payload_bytes) = 0;
  /// Starts a clean close: frames already sent arrive, then both ends reach `closed`; or `failed`
  /// with deadline_exceeded if the other end does not answer within a second.
  virtual void close() = 0;
  /// Moves things along; returns true if anything happened.
  virtual bool progress() = 0;
  /// Readable when progress() has something to do, after arm() returned true.
  virtual int event_fd() const = 0;
  /// Prepares to sleep; false if progress() has something to do already.
  virtual bool arm() = 0;
  virtual LinkStats stats() const = 0;
};

/// A received frame. Its destructor frees the slot and returns the credit.
class ReceivedFrame {
 public:
  virtual ~ReceivedFrame() = default;
  virtual FrameKind kind() const = 0;
  virtual MicrobatchId microbatch() const = 0;
  virtual PlanEpoch epoch() const = 0;  // as the sender wrote it; the link has checked it
  /// The holder may change it, so that it can be patched and sent on without a copy of its own.
  virtual std::span<std::byte> metadata() const = 0;
  virtual std::span<const std::byte> payload() const = 0;  // 64-byte aligned
  virtual TimePoint received_at() const = 0;
};

class ReceiveLink {
 public:
  virtual ~ReceiveLink() = default;
  virtual LinkState state() const = 0;
  virtual const Error& error() const = 0;
  /// Frames in the order they were sent; null if none is complete. At most `credits` may be held.
  virtual std::unique_ptr<ReceivedFrame> try_receive() = 0;
  /// Asks the sender to close; frames already sent still arrive and may be taken in state closing,
  /// and the last of them taken makes it closed.
  virtual void close() = 0;
  virtual bool progress() = 0;
  virtual int event_fd() const = 0;
  /// As for the sender. Complete frames do not keep it from sleeping: take them first.
  virtual bool arm() = 0;
  virtual LinkStats stats() const = 0;
};

}  // namespace chainpump::transport
