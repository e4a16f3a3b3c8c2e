#include "transport/network_socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <charconv>
#include <cstring>
#include <filesystem>
#include <string>

namespace chainpump::transport {
namespace {

bool is_to_another_machine(int fd) {
  sockaddr_storage peer{};
  socklen_t length = sizeof peer;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) != 0) return false;
  if (peer.ss_family == AF_INET6) {
    sockaddr_in6 v6;
    std::memcpy(&v6, &peer, sizeof v6);
    return !IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
  }
  sockaddr_in v4;
  std::memcpy(&v4, &peer, sizeof v4);
  return peer.ss_family == AF_INET && ntohl(v4.sin_addr.s_addr) >> 24 != 127;
}

}  // namespace

bool tune_network_socket(int socket) {
  const int one = 1;
  if (::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0) return false;
  const int probes = 3;
  const int timeout_ms = kNetworkLossMaxMs;
  ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &one, sizeof one);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &one, sizeof one);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  ::setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
  return true;
}

void tune_network_sockets() {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", ignored)) {
    const std::string name = entry.path().filename();
    int fd = -1;
    std::from_chars(name.data(), name.data() + name.size(), fd);
    if (is_to_another_machine(fd)) tune_network_socket(fd);
  }
}

}  // namespace chainpump::transport
