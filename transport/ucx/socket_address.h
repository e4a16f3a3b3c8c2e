// Numeric socket addresses, "127.0.0.1:4711" or "[::1]:4711", to and from the system's form. No
// name is resolved here. Pure; any thread.
#pragma once

#include <sys/socket.h>

#include <string>
#include <string_view>

#include "base/result.h"

namespace chainpump::transport {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

/// invalid_argument if `text` is not a numeric address and a port.
Result<SocketAddress> parse_socket_address(std::string_view text);
std::string to_string(const sockaddr_storage& storage);

}  // namespace chainpump::transport
