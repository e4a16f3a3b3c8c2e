#include "transport/rpc/channel.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "transport/network_socket.h"
#include "transport/rpc/unix_socket.h"
#include "transport/socket_address.h"

namespace chainpump::transport::rpc {
namespace {

constexpr int kBacklog = 64;

Error failed(const std::string& address, const char* what) {
  const int error = errno;
  const bool is_wrong = error == EADDRNOTAVAIL || error == EACCES || error == EADDRINUSE;
  return make_error(is_wrong ? ErrorCode::invalid_argument : ErrorCode::no_room,
                    "{}: cannot {}: {}", address, what, std::strerror(error));
}

}  // namespace

bool is_network_address(std::string_view address) {
  return address.find('/') == std::string_view::npos;
}

Result<Channel> open_channel(const std::string& address,
                             const std::shared_ptr<const Credentials>& credentials,
                             const Expected& expected) {
  if (!is_network_address(address)) {
    ASSIGN_OR_RETURN(UniqueFd socket, connect_unix(address));
    return Channel(std::move(socket));
  }
  if (!credentials)
    return make_error(ErrorCode::invalid_argument,
                      "{}: an address on a network is used with certificates only", address);
  ASSIGN_OR_RETURN(const SocketAddress to, parse_socket_address(address));
  UniqueFd socket(
      ::socket(to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
  if (!socket.valid()) return failed(address, "make a socket");
  tune_network_socket(socket.get());
  // Whether it comes about is seen by the first write.
  if (::connect(socket.get(), to.get(), to.length) != 0 && errno != EINPROGRESS)
    return make_error(ErrorCode::disconnected, "{}: cannot connect: {}", address,
                      std::strerror(errno));
  return Channel(std::move(socket), credentials, expected, address);
}

Result<UniqueFd> listen_network(const std::string& address) {
  ASSIGN_OR_RETURN(const SocketAddress at, parse_socket_address(address));
  UniqueFd socket(
      ::socket(at.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
  const int one = 1;
  if (!socket.valid() ||
      ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
      ::bind(socket.get(), at.get(), at.length) != 0 || ::listen(socket.get(), kBacklog) != 0)
    return failed(address, "listen");
  return socket;
}

std::string own_address(const UniqueFd& socket) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&storage), &length) != 0) return "";
  return transport::to_string(storage);
}

Result<std::string> resolve(const std::string& host_and_port) {
  if (Result<SocketAddress> numeric = parse_socket_address(host_and_port); numeric.ok())
    return host_and_port;
  const size_t colon = host_and_port.rfind(':');
  if (colon == std::string::npos || colon == 0)
    return make_error(ErrorCode::invalid_argument, "'{}' is not HOST:PORT", host_and_port);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int status = ::getaddrinfo(host_and_port.substr(0, colon).c_str(),
                                   host_and_port.substr(colon + 1).c_str(), &hints, &found);
  if (status != 0)
    return make_error(ErrorCode::not_found, "{}: {}", host_and_port, ::gai_strerror(status));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owned(found, &::freeaddrinfo);
  sockaddr_storage storage{};
  std::memcpy(&storage, found->ai_addr, std::min<size_t>(found->ai_addrlen, sizeof storage));
  return transport::to_string(storage);
}

bool is_loopback_address(const std::string& address) {
  const Result<SocketAddress> parsed = parse_socket_address(address);
  if (!parsed.ok()) return false;
  if (parsed->storage.ss_family == AF_INET6) {
    sockaddr_in6 v6;
    std::memcpy(&v6, &parsed->storage, sizeof v6);
    return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
  }
  sockaddr_in v4;
  std::memcpy(&v4, &parsed->storage, sizeof v4);
  return ntohl(v4.sin_addr.s_addr) >> 24 == 127;
}

}  // namespace chainpump::transport::rpc
