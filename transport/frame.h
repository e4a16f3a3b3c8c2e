// The header that every message on a link begins with, little endian:
//
//   offset size field           checked against
//        0    4 magic           0x4D504843 ("CHPM")
//        4    1 version         1
//        5    1 kind            WireKind, of those that this end may receive
//        6    2 flags           bit 0: body_crc is set; other bits zero
//        8    4 epoch           the link's plan epoch
//       12    4 incarnation     the link's incarnation
//       16    4 edge            the link's edge
//       20    4 metadata_bytes  <= the slot's metadata bytes
//       24    8 sequence        in the window of frames that credits allow
//       32    8 microbatch      any (the sequencer's counter)
//       40    4 payload_bytes   <= the slot's payload bytes
//       44    4 body_crc        CRC-32C of metadata then payload; zero without flag bit 0
//       48    8 send_time_ns    sender's CLOCK_MONOTONIC; only shown, never relied upon
//       56    2 credits         given back by this message: <= those outstanding
//       58    2 reserved        zero
//       60    4 header_crc      CRC-32C of bytes 0 to 59
//
// The body follows: metadata, then payload, without a gap. Nothing from the wire is used as a
// length before it passed these checks. Pure; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"
#include "transport/link.h"

namespace chainpump::transport {

inline constexpr uint32_t kFrameMagic = 0x4D504843;
inline constexpr uint8_t kFrameVersion = 1;
inline constexpr size_t kFrameHeaderBytes = 64;
inline constexpr uint16_t kFlagBodyCrc = 1;
using FrameHeaderBytes = std::array<std::byte, kFrameHeaderBytes>;

/// The first three are FrameKind; the rest are the links' own.
enum class WireKind : uint8_t {
  activation = static_cast<uint8_t>(FrameKind::activation),
  result = static_cast<uint8_t>(FrameKind::result),
  kv = static_cast<uint8_t>(FrameKind::kv),
  credit = 16,       // receiver -> sender: `credits` slots are free again
  close = 17,        // no frame follows (from the sender); please close (from the receiver)
  close_reply = 18,  // receiver -> sender: everything up to `close` has arrived
  hello = 19,        // sender -> receiver, first: metadata is a Hello (transport/hello.h)
  hello_reply = 20,  // receiver -> sender: metadata is one byte, the refused FrameField or none
};

struct FrameHeader {
  WireKind kind = WireKind::activation;
  PlanEpoch epoch;
  LinkIncarnation incarnation;
  EdgeId edge;
  uint32_t metadata_bytes = 0;
  uint32_t payload_bytes = 0;
  uint64_t sequence = 0;
  MicrobatchId microbatch;
  bool has_body_crc = false;
  uint32_t body_crc = 0;
  int64_t send_time_ns = 0;
  uint16_t credits = 0;
};

/// What can be wrong with a message; `secret`, `credits_granted` and the slot sizes only in a
/// hello.
enum class FrameField : uint8_t {
  none,
  size,
  magic,
  version,
  header_crc,
  kind,
  flags,
  epoch,
  incarnation,
  edge,
  metadata_bytes,
  sequence,
  payload_bytes,
  body_crc,
  credits,
  reserved,
  secret,
  credits_granted,
  slot_metadata_bytes,
  slot_payload_bytes,
};
inline constexpr int kNumFrameFields = 20;
/// "sequence", "payload_bytes", ...
std::string_view to_string(FrameField field);

/// What one end of a link accepts now.
struct FrameExpectation {
  PlanEpoch epoch;
  LinkIncarnation incarnation;
  EdgeId edge;
  uint32_t kinds = 0;  // bit per WireKind
  uint32_t metadata_bytes_max = 0;
  uint32_t payload_bytes_max = 0;
  uint64_t sequence_begin = 0;  // [begin, end)
  uint64_t sequence_end = 0;
  uint16_t credits_max = 0;
};
constexpr uint32_t kind_bit(WireKind kind) { return uint32_t{1} << static_cast<uint32_t>(kind); }

/// A decoded header, or the first field that is wrong with what it is and what it should be.
struct FrameCheck {
  FrameHeader header;
  FrameField refused = FrameField::none;
  uint64_t got = 0;
  uint64_t wanted = 0;
  bool ok() const { return refused == FrameField::none; }
};

void encode_frame_header(const FrameHeader& header, std::span<std::byte, kFrameHeaderBytes> out);

/// Checks and decodes `bytes`, exactly a header.
FrameCheck check_frame_header(std::span<const std::byte> bytes, const FrameExpectation& expected);

/// The same of the body that arrived with the header: its length and, if it is there, its checksum.
FrameCheck check_frame_body(const FrameHeader& header, std::span<const std::byte> body);

/// invalid_argument, naming the field and both values. For a check that is not ok.
Error refusal_error(const FrameCheck& check);

}  // namespace chainpump::transport
