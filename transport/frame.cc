#include "transport/frame.h"

#include <cstring>

#include "transport/crc32c.h"

namespace chainpump::transport {
namespace {

// Offsets of the byte table in frame.h.
constexpr size_t kMagicAt = 0;
constexpr size_t kVersionAt = 4;
constexpr size_t kKindAt = 5;
constexpr size_t kFlagsAt = 6;
constexpr size_t kEpochAt = 8;
constexpr size_t kIncarnationAt = 12;
constexpr size_t kEdgeAt = 16;
constexpr size_t kMetadataBytesAt = 20;
constexpr size_t kSequenceAt = 24;
constexpr size_t kMicrobatchAt = 32;
constexpr size_t kPayloadBytesAt = 40;
constexpr size_t kBodyCrcAt = 44;
constexpr size_t kSendTimeAt = 48;
constexpr size_t kCreditsAt = 56;
constexpr size_t kReservedAt = 58;
constexpr size_t kHeaderCrcAt = 60;
static_assert(kHeaderCrcAt + sizeof(uint32_t) == kFrameHeaderBytes);
static_assert(kSequenceAt % 8 == 0 && kMicrobatchAt % 8 == 0 && kSendTimeAt % 8 == 0);
static_assert(static_cast<int>(FrameField::slot_payload_bytes) + 1 == kNumFrameFields);

template <typename T>
void put(std::span<std::byte, kFrameHeaderBytes> out, size_t at, T value) {
  std::memcpy(out.data() + at, &value, sizeof value);
}
template <typename T>
T get(std::span<const std::byte> in, size_t at) {
  T value;
  std::memcpy(&value, in.data() + at, sizeof value);
  return value;
}

FrameCheck refuse(FrameField field, uint64_t got, uint64_t wanted) {
  FrameCheck check;
  check.refused = field;
  check.got = got;
  check.wanted = wanted;
  return check;
}

FrameHeader decode(std::span<const std::byte> bytes) {
  FrameHeader h;
  h.kind = static_cast<WireKind>(get<uint8_t>(bytes, kKindAt));
  h.epoch = PlanEpoch(get<uint32_t>(bytes, kEpochAt));
  h.incarnation = LinkIncarnation(get<uint32_t>(bytes, kIncarnationAt));
  h.edge = EdgeId(get<uint32_t>(bytes, kEdgeAt));
  h.metadata_bytes = get<uint32_t>(bytes, kMetadataBytesAt);
  h.sequence = get<uint64_t>(bytes, kSequenceAt);
  h.microbatch = MicrobatchId(get<uint64_t>(bytes, kMicrobatchAt));
  h.payload_bytes = get<uint32_t>(bytes, kPayloadBytesAt);
  h.has_body_crc = (get<uint16_t>(bytes, kFlagsAt) & kFlagBodyCrc) != 0;
  h.body_crc = get<uint32_t>(bytes, kBodyCrcAt);
  h.send_time_ns = get<int64_t>(bytes, kSendTimeAt);
  h.credits = get<uint16_t>(bytes, kCreditsAt);
  return h;
}

}  // namespace

std::string_view to_string(FrameField field) {
  static constexpr std::array<std::string_view, kNumFrameFields> kNames = {"none",
                                                                           "size",
                                                                           "magic",
                                                                           "version",
                                                                           "header_crc",
                                                                           "kind",
                                                                           "flags",
                                                                           "epoch",
                                                                           "incarnation",
                                                                           "edge",
                                                                           "metadata_bytes",
                                                                           "sequence",
                                                                           "payload_bytes",
                                                                           "body_crc",
                                                                           "credits",
                                                                           "reserved",
                                                                           "secret",
                                                                           "credits_granted",
                                                                           "slot_metadata_bytes",
                                                                           "slot_payload_bytes"};
  const auto i = static_cast<size_t>(field);
  return i < kNames.size() ? kNames[i] : "unknown field";
}

void encode_frame_header(const FrameHeader& h, std::span<std::byte, kFrameHeaderBytes> out) {
  put(out, kMagicAt, kFrameMagic);
  put(out, kVersionAt, kFrameVersion);
  put(out, kKindAt, static_cast<uint8_t>(h.kind));
  put(out, kFlagsAt, h.has_body_crc ? kFlagBodyCrc : uint16_t{0});
  put(out, kEpochAt, h.epoch.value);
  put(out, kIncarnationAt, h.incarnation.value);
  put(out, kEdgeAt, h.edge.value);
  put(out, kMetadataBytesAt, h.metadata_bytes);
  put(out, kSequenceAt, h.sequence);
  put(out, kMicrobatchAt, h.microbatch.value);
  put(out, kPayloadBytesAt, h.payload_bytes);
  put(out, kBodyCrcAt, h.has_body_crc ? h.body_crc : uint32_t{0});
  put(out, kSendTimeAt, h.send_time_ns);
  put(out, kCreditsAt, h.credits);
  put(out, kReservedAt, uint16_t{0});
  put(out, kHeaderCrcAt, crc32c(out.first<kHeaderCrcAt>()));
}

FrameCheck check_frame_header(std::span<const std::byte> bytes, const FrameExpectation& e) {
  if (bytes.size() != kFrameHeaderBytes) {
    return refuse(FrameField::size, bytes.size(), kFrameHeaderBytes);
  }
  const auto magic = get<uint32_t>(bytes, kMagicAt);
  if (magic != kFrameMagic) return refuse(FrameField::magic, magic, kFrameMagic);
  const auto version = get<uint8_t>(bytes, kVersionAt);
  if (version != kFrameVersion) return refuse(FrameField::version, version, kFrameVersion);
  const auto stored_crc = get<uint32_t>(bytes, kHeaderCrcAt);
  const uint32_t crc = crc32c(bytes.first(kHeaderCrcAt));
  if (stored_crc != crc) return refuse(FrameField::header_crc, stored_crc, crc);

  const auto kind = get<uint8_t>(bytes, kKindAt);
  if (kind >= 32 || (e.kinds >> kind & 1) == 0) return refuse(FrameField::kind, kind, e.kinds);
  const auto flags = get<uint16_t>(bytes, kFlagsAt);
  if ((flags & ~kFlagBodyCrc) != 0) return refuse(FrameField::flags, flags, kFlagBodyCrc);
  const auto reserved = get<uint16_t>(bytes, kReservedAt);
  if (reserved != 0) return refuse(FrameField::reserved, reserved, 0);

  FrameCheck check;
  check.header = decode(bytes);
  const FrameHeader& h = check.header;
  if (!h.has_body_crc && h.body_crc != 0) return refuse(FrameField::body_crc, h.body_crc, 0);
  if (h.epoch != e.epoch) return refuse(FrameField::epoch, h.epoch.value, e.epoch.value);
  if (h.incarnation != e.incarnation) {
    return refuse(FrameField::incarnation, h.incarnation.value, e.incarnation.value);
  }
  if (h.edge != e.edge) return refuse(FrameField::edge, h.edge.value, e.edge.value);
  if (h.metadata_bytes > e.metadata_bytes_max) {
    return refuse(FrameField::metadata_bytes, h.metadata_bytes, e.metadata_bytes_max);
  }
  if (h.payload_bytes > e.payload_bytes_max) {
    return refuse(FrameField::payload_bytes, h.payload_bytes, e.payload_bytes_max);
  }
  if (h.sequence < e.sequence_begin || h.sequence >= e.sequence_end) {
    return refuse(FrameField::sequence, h.sequence, e.sequence_begin);
  }
  if (h.credits > e.credits_max) return refuse(FrameField::credits, h.credits, e.credits_max);
  return check;
}

FrameCheck check_frame_body(const FrameHeader& header, std::span<const std::byte> body) {
  const uint64_t wanted = uint64_t{header.metadata_bytes} + header.payload_bytes;
  if (body.size() != wanted) return refuse(FrameField::size, body.size(), wanted);
  if (header.has_body_crc) {
    const uint32_t crc = crc32c(body);
    if (crc != header.body_crc) return refuse(FrameField::body_crc, crc, header.body_crc);
  }
  FrameCheck check;
  check.header = header;
  return check;
}

Error refusal_error(const FrameCheck& check) {
  CHECK(!check.ok());
  return make_error(ErrorCode::invalid_argument, "frame refused: {} is {}, expected {}",
                    to_string(check.refused), check.got, check.wanted);
}

}  // namespace chainpump::transport
