// What the two ends of a link do whatever carries the bytes: stamping and checking headers, the
// credit ledger, the order of delivery, counters. The loopback and the UCX links are shells around
// these, so that a test of one tests the rules of both. No socket, thread or UCX here; one thread
// per object, the clock is passed in.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "transport/credit_ledger.h"
#include "transport/frame.h"
#include "transport/latency_histogram.h"
#include "transport/link.h"
#include "transport/slot_pool.h"

namespace chainpump::transport {

/// What a link may be made with: credits 1 to 1,024, slots up to 1 GiB of payload and 16 MiB of
/// metadata. invalid_argument otherwise.
Status check_link_options(const LinkOptions& options);

/// A header of this link with everything but kind, sequence and body filled in.
FrameHeader link_header(const LinkOptions& options, WireKind kind, const Clock& clock);

class SendCore {
 public:
  SendCore(const LinkOptions& options, const Clock& clock);

  /// Takes a credit; false if there is none (from then on the time is counted as blocked).
  bool acquire();
  void give_back() { ledger_.give_back(); }

  /// Writes metadata and header in front of the payload of a slot whose credit was acquired, and
  /// spends the credit. The frame then lies ready in the slot.
  FrameHeader stamp(SlotPool& pool, int32_t slot, FrameKind kind, MicrobatchId microbatch,
                    std::span<const std::byte> metadata, uint32_t payload_bytes);

  /// Checks a control message from the receiver: credit, close, close_reply. Returned credits are
  /// booked.
  FrameCheck accept_control(std::span<const std::byte> header);

  FrameHeader close_header() const;
  const CreditLedger& ledger() const { return ledger_; }
  const LinkOptions& options() const { return options_; }
  LinkStats& stats() { return stats_; }
  LinkStats report() const;

 private:
  LinkOptions options_;
  const Clock& clock_;
  CreditLedger ledger_;
  uint64_t next_sequence_ = 1;
  std::optional<TimePoint> blocked_since_;
  LinkStats stats_;
};

/// A frame that has begun to arrive, or is complete and waits for its turn.
struct IncomingFrame {
  FrameHeader header;
  int32_t slot = -1;
  bool complete = false;
  TimePoint received_at;
};

class ReceiveCore {
 public:
  ReceiveCore(const LinkOptions& options, const Clock& clock);

  /// Checks the header of whatever the sender sends after its hello, a frame or a close, and that
  /// the body that came (or will come) with it is as long as the header says.
  FrameCheck accept_header(std::span<const std::byte> header, uint64_t body_bytes);
  /// A frame passed accept_header; its body goes to `slot`.
  void begin(const FrameHeader& header, int32_t slot);
  /// Its body is in the slot: checks length and checksum, and makes it ready to be taken.
  FrameCheck finish(uint64_t sequence, SlotPool& pool);
  /// The sender's close says how many frames it sent.
  void closing_after(const FrameHeader& close) { close_sequence_ = close.sequence; }

  /// The next frame in order, if it is complete.
  std::optional<IncomingFrame> take();
  /// A taken frame was let go.
  void release() {
    ledger_.released();
    ++stats_.spoken;
  }

  /// True when the sender has closed and every frame before that is complete.
  bool all_arrived() const { return close_sequence_ && stats_.frames + 1 == *close_sequence_; }
  /// True when, beyond that, every frame has been taken.
  bool drained() const { return close_sequence_ && *close_sequence_ == next_sequence_; }
  /// True when the next frame in order is complete.
  bool ready() const;

  FrameHeader credit_header(uint16_t credits) const;
  FrameHeader close_header(WireKind kind) const;
  const CreditLedger& ledger() const { return ledger_; }
  const LinkOptions& options() const { return options_; }
  LinkStats& stats() { return stats_; }
  LinkStats report() const;
  const Clock& clock() const { return clock_; }

 private:
  IncomingFrame& at(uint64_t sequence);
  const IncomingFrame& at(uint64_t sequence) const;

  LinkOptions options_;
  const Clock& clock_;
  CreditLedger ledger_;
  uint64_t next_sequence_ = 1;           // the next to be taken
  std::vector<IncomingFrame> incoming_;  // by sequence modulo credits; slot < 0 where none
  std::optional<uint64_t> close_sequence_;
  LatencyHistogram latency_;
  LinkStats stats_;
};

}  // namespace chainpump::transport
