// The first message on a link and its answer. The sender says which edge, epoch and incarnation it
// believes in (header), proves that the control plane told it the secret, and says how it was
// configured; the receiver answers with the first field it refuses, or none. A refusal carries no
// value, so it tells a stranger nothing.
//
//   hello metadata, 24 bytes: secret u64 | slot_payload_bytes i64 | slot_metadata_bytes u32 |
//   credits u32 hello_reply metadata, 1 byte: FrameField
//
// Pure; any thread.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "transport/frame.h"
#include "transport/link.h"

namespace chainpump::transport {

inline constexpr uint32_t kHelloBytes = 24;

/// A whole hello: header and metadata.
std::vector<std::byte> encode_hello(const LinkOptions& options, const Clock& clock);

/// The first field of `hello` (header and body as they arrived) that is not as `options` has it, or
/// none. The secret is looked at before anything else that the two could disagree about.
FrameField check_hello(const LinkOptions& options, std::span<const std::byte> header,
                       std::span<const std::byte> body);

/// What a well-formed hello claims to be for; no value if it is not well formed.
struct HelloClaim {
  EdgeId edge;
  uint64_t secret = 0;
};
Result<HelloClaim> read_hello(std::span<const std::byte> header, std::span<const std::byte> body);

/// A whole hello_reply: header and metadata.
std::vector<std::byte> encode_hello_reply(const LinkOptions& options, FrameField refused,
                                          const Clock& clock);

/// ok if the peer accepted; invalid_argument, naming the field, if it refused or if the reply
/// itself is wrong.
Status check_hello_reply(const LinkOptions& options, std::span<const std::byte> header,
                         std::span<const std::byte> body);

}  // namespace chainpump::transport
