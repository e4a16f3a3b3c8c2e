// A link inside one process: for tests and for `--in-process`. Both ends share one set of slots, so
// nothing is copied, but every message passes the same header encoding, checks, checksums, credits
// and closing handshake as on the wire. Each end belongs to one thread; the two may be different
// (what they share is behind one mutex; an eventfd wakes the other side).
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "base/clock.h"
#include "transport/link.h"

namespace chainpump::transport {

using LinkPair = std::pair<std::unique_ptr<SendLink>, std::unique_ptr<ReceiveLink>>;

/// Both ends, open. `options` must be valid (check_link_options in transport/link_core.h).
LinkPair make_loopback_pair(const LinkOptions& options);

/// For tests of what goes wrong: ends that may disagree, and a hand on the wire.
struct LoopbackTestOptions {
  LinkOptions sender;
  LinkOptions receiver;
  /// Called in the sending thread with every message from the sender (header, metadata, payload),
  /// which it may change. May be empty.
  std::function<void(std::span<std::byte> message)> on_wire;
};

/// Both ends, open if the hello was accepted, else failed.
LinkPair make_loopback_pair(const LoopbackTestOptions& options);

}  // namespace chainpump::transport
