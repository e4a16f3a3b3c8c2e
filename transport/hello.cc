#include "transport/hello.h"

#include <limits>

#include "base/byte_io.h"
#include "transport/crc32c.h"
#include "transport/link_core.h"

namespace chainpump::transport {
namespace {

struct Hello {
  uint64_t secret = 0;
  int64_t slot_payload_bytes = 0;
  uint32_t slot_metadata_bytes = 0;
  uint32_t credits = 0;
};
static_assert(kHelloBytes == 3 * sizeof(uint64_t));

std::vector<std::byte> whole(FrameHeader header, std::span<const std::byte> body) {
  header.metadata_bytes = static_cast<uint32_t>(body.size());
  header.has_body_crc = true;
  header.body_crc = crc32c(body);
  std::vector<std::byte> out(kFrameHeaderBytes);
  encode_frame_header(header,
                      std::span<std::byte, kFrameHeaderBytes>(out.data(), kFrameHeaderBytes));
  out.insert(out.end(), body.begin(), body.end());
  return out;
}

// Everything but the ids, which are compared after the secret.
FrameCheck check_form(std::span<const std::byte> header, std::span<const std::byte> body,
                      WireKind kind, uint32_t body_bytes) {
  FrameExpectation e;
  // The ids as they stand in the header; a short header fails on its size before they matter.
  if (header.size() == kFrameHeaderBytes) {
    ByteReader reader(header.subspan(8));
    e.epoch = PlanEpoch(reader.read<uint32_t>());
    e.incarnation = LinkIncarnation(reader.read<uint32_t>());
    e.edge = EdgeId(reader.read<uint32_t>());
  }
  e.kinds = kind_bit(kind);
  e.metadata_bytes_max = body_bytes;
  e.sequence_end = 1;
  FrameCheck check = check_frame_header(header, e);
  if (check.ok()) check = check_frame_body(check.header, body);
  if (check.ok() && body.size() != body_bytes) check.refused = FrameField::metadata_bytes;
  return check;
}

Hello decode_hello(std::span<const std::byte> body) {
  ByteReader reader(body);
  Hello hello;
  hello.secret = reader.read<uint64_t>();
  hello.slot_payload_bytes = reader.read<int64_t>();
  hello.slot_metadata_bytes = reader.read<uint32_t>();
  hello.credits = reader.read<uint32_t>();
  return hello;
}

FrameField compare_ids(const LinkOptions& options, const FrameHeader& h) {
  if (h.edge != options.edge) return FrameField::edge;
  if (h.epoch != options.epoch) return FrameField::epoch;
  if (h.incarnation != options.incarnation) return FrameField::incarnation;
  return FrameField::none;
}

}  // namespace

std::vector<std::byte> encode_hello(const LinkOptions& options, const Clock& clock) {
  std::vector<std::byte> body;
  ByteWriter writer(body);
  writer.write(options.secret);
  writer.write(options.slot_payload_bytes);
  writer.write(static_cast<uint32_t>(options.slot_metadata_bytes));
  writer.write(static_cast<uint32_t>(options.credits));
  return whole(link_header(options, WireKind::hello, clock), body);
}

FrameField check_hello(const LinkOptions& options, std::span<const std::byte> header,
                       std::span<const std::byte> body) {
  const FrameCheck form = check_form(header, body, WireKind::hello, kHelloBytes);
  if (!form.ok()) return form.refused;
  const Hello hello = decode_hello(body);
  if (hello.secret != options.secret) return FrameField::secret;
  const FrameField id = compare_ids(options, form.header);
  if (id != FrameField::none) return id;
  if (hello.credits != static_cast<uint32_t>(options.credits)) return FrameField::credits_granted;
  if (hello.slot_payload_bytes != options.slot_payload_bytes) return FrameField::slot_payload_bytes;
  if (hello.slot_metadata_bytes != static_cast<uint32_t>(options.slot_metadata_bytes)) {
    return FrameField::slot_metadata_bytes;
  }
  return FrameField::none;
}

Result<HelloClaim> read_hello(std::span<const std::byte> header, std::span<const std::byte> body) {
  const FrameCheck form = check_form(header, body, WireKind::hello, kHelloBytes);
  if (!form.ok()) return refusal_error(form);
  return HelloClaim{form.header.edge, decode_hello(body).secret};
}

std::vector<std::byte> encode_hello_reply(const LinkOptions& options, FrameField refused,
                                          const Clock& clock) {
  const auto field = static_cast<std::byte>(refused);
  return whole(link_header(options, WireKind::hello_reply, clock), std::span(&field, 1));
}

Status check_hello_reply(const LinkOptions& options, std::span<const std::byte> header,
                         std::span<const std::byte> body) {
  const FrameCheck form = check_form(header, body, WireKind::hello_reply, 1);
  if (!form.ok()) return refusal_error(form);
  const auto refused = static_cast<uint8_t>(body.front());
  if (refused >= kNumFrameFields) {
    return make_error(ErrorCode::invalid_argument, "edge {}: hello_reply with unknown field {}",
                      options.edge, refused);
  }
  if (refused != 0) {
    return make_error(ErrorCode::invalid_argument,
                      "edge {}: the receiver refused our hello: {} is not the one it expects",
                      options.edge, to_string(static_cast<FrameField>(refused)));
  }
  const FrameField id = compare_ids(options, form.header);
  if (id != FrameField::none) {
    return make_error(ErrorCode::invalid_argument, "edge {}: hello_reply has another {}",
                      options.edge, to_string(id));
  }
  return ok_status();
}

}  // namespace chainpump::transport
