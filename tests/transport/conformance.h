// What every kind of link must do, run over each of them: how to make a pair of ends, and how to
// move both along until something holds. Used by conformance_test.cc and its neighbours.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "transport/link.h"

namespace chainpump::transport {

enum class LinkKind { loopback, ucx_tcp, ucx_shared_memory };
std::ostream& operator<<(std::ostream& out, LinkKind kind);

struct Ends {
  std::shared_ptr<void> listener;  // what must outlive the links
  std::unique_ptr<SendLink> send;
  std::unique_ptr<ReceiveLink> receive;
};

/// Two ends in this process, as made: they may be connecting still.
Ends make_ends(LinkKind kind, const LinkOptions& sender, const LinkOptions& receiver);
/// Two ends in state open.
Ends open_ends(LinkKind kind, const LinkOptions& options);

/// Moves both ends (those that are there) along until `condition` holds; false after 5 s.
bool drive(Ends& ends, const std::function<bool()>& condition);

LinkOptions small_options();  // 4 credits, 8 KiB payload, 256 bytes metadata

/// Bytes that depend on `seed` and the place, so that any mix-up shows.
std::vector<std::byte> pattern(uint64_t seed, size_t size);

/// Acquires a slot (waiting for one), fills it with pattern(seed, payload_bytes) and sends it with
/// metadata pattern(seed + 1, metadata_bytes) as microbatch `seed`.
Status send_pattern(Ends& ends, uint64_t seed, size_t metadata_bytes, size_t payload_bytes);
/// The next frame, waited for; null after 5 s.
std::unique_ptr<ReceivedFrame> receive(Ends& ends);
/// Whether `frame` is what send_pattern() sent.
bool is_pattern(const ReceivedFrame& frame, uint64_t seed, size_t metadata_bytes,
                size_t payload_bytes);

}  // namespace chainpump::transport
