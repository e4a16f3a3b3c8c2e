// Whatever bytes a peer sends: a frame header with its body, a hello, a hello's reply, a control
// message. The header's checksum is made right first, so that the fuzzer gets past it.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "transport/crc32c.h"
#include "transport/hello.h"
#include "transport/link_core.h"

using namespace chainpump;
using namespace chainpump::transport;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  LinkOptions options;
  options.credits = 2;
  options.slot_payload_bytes = 256;
  options.slot_metadata_bytes = 64;
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  if (size >= kFrameHeaderBytes) {
    const uint32_t crc = crc32c(std::span(bytes).first(kFrameHeaderBytes - 4));
    std::memcpy(bytes.data() + kFrameHeaderBytes - 4, &crc, sizeof crc);
  }
  const std::span<const std::byte> all(bytes);
  const auto header = all.first(std::min(size, kFrameHeaderBytes));
  const auto body = all.subspan(header.size());

  ReceiveCore receiver(options, steady_clock());
  SlotPool pool(options.credits, options.slot_metadata_bytes, options.slot_payload_bytes);
  const FrameCheck check = receiver.accept_header(header, body.size());
  if (!check.ok()) {
    CHECK(!refusal_error(check).message.empty());
  } else if (check.header.kind != WireKind::close) {
    const auto slot = pool.take();
    CHECK(slot.has_value());
    const auto place = pool.body(*slot, check.header.metadata_bytes, check.header.payload_bytes);
    CHECK_EQ(place.size(), body.size());
    if (!body.empty()) std::memcpy(place.data(), body.data(), body.size());
    receiver.begin(check.header, *slot);
    static_cast<void>(receiver.finish(check.header.sequence, pool));
  }
  SendCore sender(options, steady_clock());
  static_cast<void>(sender.accept_control(header));
  static_cast<void>(check_hello(options, header, body));
  static_cast<void>(read_hello(header, body));
  static_cast<void>(check_hello_reply(options, header, body));
  return 0;
}
