#include "transport/socket_address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <vector>

namespace chainpump::transport {
namespace {

template <typename Address>
SocketAddress socket_address(const Address& address) {
  SocketAddress made;
  made.length = sizeof address;
  std::memcpy(&made.storage, &address, sizeof address);
  return made;
}

}  // namespace

Result<SocketAddress> parse_socket_address(std::string_view text) {
  const auto wrong = [&] {
    return make_error(ErrorCode::invalid_argument,
                      "`{}` is not a numeric address and port, as 127.0.0.1:4711", text);
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return wrong();
  const std::string_view digits = text.substr(colon + 1);
  uint16_t port = 0;
  const auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (status != std::errc() || end != digits.data() + digits.size()) return wrong();
  std::string host(text.substr(0, colon));

  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    if (inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) != 1) return wrong();
    return socket_address(v6);
  }
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) != 1) return wrong();
  return socket_address(v4);
}

std::string to_string(const sockaddr_storage& storage) {
  std::array<char, INET6_ADDRSTRLEN> host{};
  if (storage.ss_family == AF_INET6) {
    sockaddr_in6 v6;
    std::memcpy(&v6, &storage, sizeof v6);
    inet_ntop(AF_INET6, &v6.sin6_addr, host.data(), host.size());
    return fmt::format("[{}]:{}", host.data(), ntohs(v6.sin6_port));
  }
  sockaddr_in v4;
  std::memcpy(&v4, &storage, sizeof v4);
  inet_ntop(AF_INET, &v4.sin_addr, host.data(), host.size());
  return fmt::format("{}:{}", host.data(), ntohs(v4.sin_port));
}

namespace {

struct Interface {
  std::string name;
  SocketAddress address;
};

std::vector<Interface> interfaces() {
  std::vector<Interface> found;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return found;
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owned(list, &::freeifaddrs);
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr) continue;
    const int family = each->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    Interface& interface = found.emplace_back();
    interface.name = each->ifa_name;
    interface.address.length = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    std::memcpy(&interface.address.storage, each->ifa_addr, interface.address.length);
  }
  return found;
}

/// Its bytes in network order.
std::vector<uint8_t> bytes_of(const SocketAddress& address) {
  std::vector<uint8_t> bytes;
  if (address.storage.ss_family == AF_INET6) {
    sockaddr_in6 v6;
    std::memcpy(&v6, &address.storage, sizeof v6);
    bytes.assign(v6.sin6_addr.s6_addr, v6.sin6_addr.s6_addr + 16);
  } else {
    sockaddr_in v4;
    std::memcpy(&v4, &address.storage, sizeof v4);
    bytes.resize(4);
    std::memcpy(bytes.data(), &v4.sin_addr, 4);
  }
  return bytes;
}

bool same_prefix(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b, size_t num_bits) {
  if (a.size() != b.size()) return false;
  for (size_t bit = 0; bit < num_bits; ++bit)
    if (((a[bit / 8] ^ b[bit / 8]) >> (7 - bit % 8) & 1) != 0) return false;
  return true;
}

/// Without the port that to_string() writes.
std::string host_of(const SocketAddress& address) {
  const std::string text = to_string(address.storage);
  return text.substr(0, text.rfind(':'));
}

}  // namespace

Result<std::string> interface_of(const std::string& address) {
  ASSIGN_OR_RETURN(const SocketAddress wanted, parse_socket_address(address + ":0"));
  for (const Interface& each : interfaces()) {
    const std::vector<uint8_t> own = bytes_of(each.address);
    if (own == bytes_of(wanted)) return each.name;
    // All of 127.0.0.0/8 is on the loopback.
    if (own.size() == 4 && own[0] == 127 && same_prefix(own, bytes_of(wanted), 8)) return each.name;
  }
  return make_error(ErrorCode::not_found, "{}: no interface of this machine has this address",
                    address);
}

Result<std::string> address_on(const std::string& interface_or_network) {
  const size_t slash = interface_or_network.find('/');
  std::vector<uint8_t> network;
  size_t num_bits = 0;
  if (slash != std::string::npos) {
    const std::string host = interface_or_network.substr(0, slash);
    const char* digits = interface_or_network.data() + slash + 1;
    const char* end = interface_or_network.data() + interface_or_network.size();
    const Result<SocketAddress> base = parse_socket_address(
        (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":0");
    const auto [stop, status] = std::from_chars(digits, end, num_bits);
    if (base.ok()) network = bytes_of(*base);
    if (!base.ok() || status != std::errc() || stop != end || num_bits > network.size() * 8)
      return make_error(ErrorCode::invalid_argument,
                        "'{}' is no network such as 10.0.0.0/24, and no interface",
                        interface_or_network);
  }
  std::vector<std::string> found;
  for (const Interface& each : interfaces()) {
    const bool fits = network.empty() ? each.name == interface_or_network &&
                                            each.address.storage.ss_family == AF_INET
                                      : same_prefix(bytes_of(each.address), network, num_bits);
    if (fits) found.push_back(host_of(each.address));
  }
  if (found.empty())
    return make_error(ErrorCode::not_found, "'{}': this machine has no address there",
                      interface_or_network);
  if (found.size() > 1)
    return make_error(ErrorCode::invalid_argument,
                      "'{}': this machine has {} there; name one as {}/32", interface_or_network,
                      fmt::join(found, " and "), found.front());
  return found.front();
}

}  // namespace chainpump::transport
