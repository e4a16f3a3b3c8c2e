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

/// The network interface that has this numeric address: "lo", "eth0". not_found.
Result<std::string> interface_of(const std::string& address);
/// An interface by its name, "eth0", or by its network, "10.0.0.0/24": its numeric address on this
/// machine. not_found; invalid_argument: neither, or it has several addresses there.
Result<std::string> address_on(const std::string& interface_or_network);

}  // namespace chainpump::transport
