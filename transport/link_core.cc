#include "transport/link_core.h"

#include <cstring>

#include "base/check.h"
#include "transport/armed_fault.h"
#include "transport/crc32c.h"

namespace chainpump::transport {
namespace {

constexpr int32_t kCreditsMax = 1024;
constexpr int64_t kSlotPayloadBytesMax = int64_t{1} << 30;
constexpr int64_t kSlotMetadataBytesMax = int64_t{1} << 24;

FrameExpectation expectation(const LinkOptions& options, uint32_t kinds) {
  FrameExpectation e;
  e.epoch = options.epoch;
  e.incarnation = options.incarnation;
  e.edge = options.edge;
  e.kinds = kinds;
  return e;
}

}  // namespace

Status check_link_options(const LinkOptions& options) {
  if (options.credits < 1 || options.credits > kCreditsMax) {
    return make_error(ErrorCode::invalid_argument, "edge {}: {} credits, must be 1 to {}",
                      options.edge, options.credits, kCreditsMax);
  }
  if (options.slot_payload_bytes < 0 || options.slot_payload_bytes > kSlotPayloadBytesMax) {
    return make_error(ErrorCode::invalid_argument, "edge {}: {} payload bytes a slot, at most {}",
                      options.edge, options.slot_payload_bytes, kSlotPayloadBytesMax);
  }
  if (options.slot_metadata_bytes < 0 || options.slot_metadata_bytes > kSlotMetadataBytesMax) {
    return make_error(ErrorCode::invalid_argument, "edge {}: {} metadata bytes a slot, at most {}",
                      options.edge, options.slot_metadata_bytes, kSlotMetadataBytesMax);
  }
  return ok_status();
}

FrameHeader link_header(const LinkOptions& options, WireKind kind, const Clock& clock) {
  FrameHeader h;
  h.kind = kind;
  h.epoch = options.epoch;
  h.incarnation = options.incarnation;
  h.edge = options.edge;
  h.send_time_ns = clock.now().since_epoch.count();
  return h;
}

SendCore::SendCore(const LinkOptions& options, const Clock& clock)
    : options_(options), clock_(clock), ledger_(options.credits) {}

bool SendCore::acquire() {
  if (ledger_.available() == 0) {
    if (!blocked_since_) blocked_since_ = clock_.now();
    return false;
  }
  if (blocked_since_) {
    stats_.blocked_on_credit += clock_.now() - *blocked_since_;
    blocked_since_.reset();
  }
  ledger_.acquire();
  return true;
}

FrameHeader SendCore::stamp(SlotPool& pool, int32_t slot, FrameKind kind, MicrobatchId microbatch,
                            std::span<const std::byte> metadata, uint32_t payload_bytes) {
  FrameHeader h = link_header(options_, static_cast<WireKind>(kind), clock_);
  h.microbatch = microbatch;
  h.metadata_bytes = static_cast<uint32_t>(metadata.size());
  h.payload_bytes = payload_bytes;
  h.sequence = next_sequence_++;
  const std::span<std::byte> body = pool.body(slot, h.metadata_bytes, payload_bytes);
  if (!metadata.empty()) std::memcpy(body.data(), metadata.data(), metadata.size());
  if (options_.checksum_payload) {
    h.has_body_crc = true;
    h.body_crc = crc32c(body);
  }
  const auto header = pool.header(slot, h.metadata_bytes);
  encode_frame_header(h, header);
  if (options_.fault != nullptr) options_.fault->damage(header, body, h.has_body_crc);
  ledger_.send();
  ++stats_.frames;
  ++stats_.spoken;
  stats_.metadata_bytes += h.metadata_bytes;
  stats_.payload_bytes += payload_bytes;
  return h;
}

FrameCheck SendCore::accept_control(std::span<const std::byte> header) {
  FrameExpectation e =
      expectation(options_, kind_bit(WireKind::credit) | kind_bit(WireKind::close) |
                                kind_bit(WireKind::close_reply));
  e.sequence_end = 1;
  e.credits_max = static_cast<uint16_t>(ledger_.in_flight());
  FrameCheck check = check_frame_header(header, e);
  if (!check.ok()) {
    ++stats_.refused_frames;
  } else {
    ledger_.returned(check.header.credits);
    stats_.heard += check.header.credits;
  }
  return check;
}

FrameHeader SendCore::close_header() const {
  FrameHeader h = link_header(options_, WireKind::close, clock_);
  h.sequence = next_sequence_;
  return h;
}

LinkStats SendCore::report() const {
  LinkStats stats = stats_;
  if (blocked_since_) stats.blocked_on_credit += clock_.now() - *blocked_since_;
  return stats;
}

ReceiveCore::ReceiveCore(const LinkOptions& options, const Clock& clock)
    : options_(options),
      clock_(clock),
      ledger_(options.credits),
      incoming_(static_cast<size_t>(options.credits)) {}

IncomingFrame& ReceiveCore::at(uint64_t sequence) { return incoming_[sequence % incoming_.size()]; }
const IncomingFrame& ReceiveCore::at(uint64_t sequence) const {
  return incoming_[sequence % incoming_.size()];
}

FrameCheck ReceiveCore::accept_header(std::span<const std::byte> header, uint64_t body_bytes) {
  FrameExpectation e =
      expectation(options_, kind_bit(WireKind::activation) | kind_bit(WireKind::result) |
                                kind_bit(WireKind::kv) | kind_bit(WireKind::close));
  e.metadata_bytes_max = static_cast<uint32_t>(options_.slot_metadata_bytes);
  e.payload_bytes_max = static_cast<uint32_t>(options_.slot_payload_bytes);
  // Frames held by the user were taken already: what may still come is bounded by the free slots
  // and those that have begun to arrive or wait to be taken. One more for the close.
  e.sequence_begin = next_sequence_;
  e.sequence_end = next_sequence_ + incoming_.size() + 1;
  FrameCheck check = check_frame_header(header, e);
  const FrameHeader& h = check.header;
  const auto refuse = [&check](FrameField field, uint64_t got, uint64_t wanted) {
    check.refused = field;
    check.got = got;
    check.wanted = wanted;
  };
  const uint64_t wanted = uint64_t{h.metadata_bytes} + h.payload_bytes;
  if (check.ok() && body_bytes != wanted) refuse(FrameField::size, body_bytes, wanted);
  if (check.ok() && h.kind == WireKind::close) {
    if (wanted != 0) refuse(FrameField::size, wanted, 0);
  } else if (check.ok()) {
    const bool past_window = h.sequence == e.sequence_end - 1;
    const bool past_close = close_sequence_ && h.sequence >= *close_sequence_;
    if (past_window || past_close || at(h.sequence).slot >= 0) {
      refuse(FrameField::sequence, h.sequence, e.sequence_begin);
    } else if (ledger_.available() == 0) {
      refuse(FrameField::credits, 1, 0);  // a frame for which no credit was granted
    }
  }
  if (!check.ok()) ++stats_.refused_frames;
  return check;
}

void ReceiveCore::begin(const FrameHeader& header, int32_t slot) {
  IncomingFrame& frame = at(header.sequence);
  CHECK_LT(frame.slot, 0);
  frame = IncomingFrame{header, slot, false, TimePoint{}};
  ++stats_.heard;
  ledger_.arriving();
}

FrameCheck ReceiveCore::finish(uint64_t sequence, SlotPool& pool) {
  IncomingFrame& frame = at(sequence);
  CHECK_GE(frame.slot, 0);
  CHECK_EQ(frame.header.sequence, sequence);
  const FrameHeader& h = frame.header;
  const FrameCheck check =
      check_frame_body(h, pool.body(frame.slot, h.metadata_bytes, h.payload_bytes));
  if (!check.ok()) {
    ++stats_.refused_frames;
    return check;
  }
  frame.complete = true;
  frame.received_at = clock_.now();
  ledger_.arrived();
  // The sender's clock may say anything: the difference wraps.
  latency_.add(
      Duration(static_cast<int64_t>(static_cast<uint64_t>(frame.received_at.since_epoch.count()) -
                                    static_cast<uint64_t>(h.send_time_ns))));
  ++stats_.frames;
  stats_.metadata_bytes += h.metadata_bytes;
  stats_.payload_bytes += h.payload_bytes;
  return check;
}

bool ReceiveCore::ready() const {
  const IncomingFrame& frame = at(next_sequence_);
  return frame.slot >= 0 && frame.complete;
}

std::optional<IncomingFrame> ReceiveCore::take() {
  if (!ready()) return std::nullopt;
  IncomingFrame& frame = at(next_sequence_);
  const IncomingFrame taken = frame;
  frame.slot = -1;
  ++next_sequence_;
  return taken;
}

FrameHeader ReceiveCore::credit_header(uint16_t credits) const {
  FrameHeader h = link_header(options_, WireKind::credit, clock_);
  h.credits = credits;
  return h;
}

FrameHeader ReceiveCore::close_header(WireKind kind) const {
  return link_header(options_, kind, clock_);
}

LinkStats ReceiveCore::report() const {
  LinkStats stats = stats_;
  stats.latency_p50_us = latency_.quantile_us(0.50);
  stats.latency_p99_us = latency_.quantile_us(0.99);
  return stats;
}

}  // namespace chainpump::transport
