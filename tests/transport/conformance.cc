#include "tests/transport/conformance.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "transport/loopback.h"
#include "transport/ucx/ucx_listener.h"
#include "transport/ucx/ucx_send_link.h"

namespace chainpump::transport {
namespace {

std::shared_ptr<UcxContext> context_of(LinkKind kind) {
  const auto make = [](TransportKind transport) {
    auto context = UcxContext::create({.kind = transport});
    CHECK_MSG(context.ok(), "{}", context.error().message);
    return *context;
  };
  if (kind == LinkKind::ucx_tcp) {
    static const std::shared_ptr<UcxContext> tcp = make(TransportKind::tcp);
    return tcp;
  }
  static const std::shared_ptr<UcxContext> memory = make(TransportKind::shared_memory);
  return memory;
}

}  // namespace

std::ostream& operator<<(std::ostream& out, LinkKind kind) {
  switch (kind) {
    case LinkKind::loopback:
      return out << "loopback";
    case LinkKind::ucx_tcp:
      return out << "ucx_tcp";
    case LinkKind::ucx_shared_memory:
      return out << "ucx_shared_memory";
  }
  return out;
}

Ends make_ends(LinkKind kind, const LinkOptions& sender, const LinkOptions& receiver) {
  Ends ends;
  if (kind == LinkKind::loopback) {
    LoopbackTestOptions options;
    options.sender = sender;
    options.receiver = receiver;
    std::tie(ends.send, ends.receive) = make_loopback_pair(options);
    return ends;
  }
  UcxListenerOptions listen;
  listen.hello_deadline = std::chrono::milliseconds(300);
  auto listener = UcxListener::create(context_of(kind), listen);
  CHECK_MSG(listener.ok(), "{}", listener.error().message);
  std::shared_ptr<UcxListener> shared = std::move(*listener);
  auto receive = shared->accept(receiver);
  CHECK_MSG(receive.ok(), "{}", receive.error().message);
  auto send = ucx_connect(context_of(kind), shared->address(), sender);
  CHECK_MSG(send.ok(), "{}", send.error().message);
  ends.listener = shared;
  ends.send = std::move(*send);
  ends.receive = std::move(*receive);
  return ends;
}

Ends open_ends(LinkKind kind, const LinkOptions& options) {
  Ends ends = make_ends(kind, options, options);
  const bool open = drive(ends, [&] {
    return ends.send->state() == LinkState::open && ends.receive->state() == LinkState::open;
  });
  CHECK_MSG(open, "sender: {}; receiver: {}", ends.send->error().message,
            ends.receive->error().message);
  return ends;
}

bool drive(Ends& ends, const std::function<bool()>& condition) {
  const TimePoint deadline = steady_clock().now() + std::chrono::seconds(5);
  while (!condition()) {
    if (steady_clock().now() >= deadline) return false;
    if (ends.send) ends.send->progress();
    if (ends.receive) ends.receive->progress();
  }
  return true;
}

LinkOptions small_options() {
  LinkOptions options;
  options.edge = EdgeId(3);
  options.epoch = PlanEpoch(7);
  options.incarnation = LinkIncarnation(2);
  options.secret = 0x1234567890abcdef;
  options.credits = 4;
  options.slot_payload_bytes = 8192;
  options.slot_metadata_bytes = 256;
  return options;
}

std::vector<std::byte> pattern(uint64_t seed, size_t size) {
  std::vector<std::byte> bytes(size);
  uint64_t x = seed * 0x9E3779B97F4A7C15 + 1;
  for (std::byte& b : bytes) {
    x = x * 6364136223846793005 + 1442695040888963407;
    b = static_cast<std::byte>(x >> 56);
  }
  return bytes;
}

Status send_pattern(Ends& ends, uint64_t seed, size_t metadata_bytes, size_t payload_bytes) {
  std::unique_ptr<SendSlot> slot;
  if (!drive(ends, [&] { return (slot = ends.send->try_acquire()) != nullptr; })) {
    return make_error(ErrorCode::deadline_exceeded, "no slot became free");
  }
  const std::vector<std::byte> payload = pattern(seed, payload_bytes);
  std::copy(payload.begin(), payload.end(), slot->payload().begin());
  return ends.send->send(std::move(slot), FrameKind::activation, MicrobatchId(seed),
                         pattern(seed + 1, metadata_bytes), static_cast<int64_t>(payload_bytes));
}

std::unique_ptr<ReceivedFrame> receive(Ends& ends) {
  std::unique_ptr<ReceivedFrame> frame;
  drive(ends, [&] { return (frame = ends.receive->try_receive()) != nullptr; });
  return frame;
}

bool is_pattern(const ReceivedFrame& frame, uint64_t seed, size_t metadata_bytes,
                size_t payload_bytes) {
  return frame.kind() == FrameKind::activation && frame.microbatch() == MicrobatchId(seed) &&
         reinterpret_cast<uintptr_t>(frame.payload().data()) % 64 == 0 &&
         std::ranges::equal(frame.metadata(), pattern(seed + 1, metadata_bytes)) &&
         std::ranges::equal(frame.payload(), pattern(seed, payload_bytes));
}

}  // namespace chainpump::transport
