// What two peers say to each other, kept, and made into what no peer of ours would say. For tests
// of what listens on a stream socket.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <random>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/unique_fd.h"

namespace chainpump::fakes {

using Bytes = std::vector<char>;

inline std::pair<UniqueFd, UniqueFd> connected_sockets() {
  int fds[2];
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

/// Carries what comes from one socket to the other, and keeps it, until an end is closed.
struct Wiretap {
  Bytes from_client, from_server;
  void run(const UniqueFd& client, const UniqueFd& server) {
    pollfd both[2] = {{client.get(), POLLIN, 0}, {server.get(), POLLIN, 0}};
    while (poll(both, 2, 5000) > 0) {
      for (const int side : {0, 1}) {
        if (both[side].revents == 0) continue;
        char buffer[4096];
        const ssize_t got = read(both[side].fd, buffer, sizeof buffer);
        if (got <= 0) return;
        Bytes& kept = side == 0 ? from_client : from_server;
        kept.insert(kept.end(), buffer, buffer + got);
        const ssize_t sent =
            send(both[1 - side].fd, buffer, static_cast<size_t>(got), MSG_NOSIGNAL);
        if (sent < 0 && errno == EPIPE) return;
        CHECK_EQ(sent, got);
      }
    }
  }
};

/// Noise, or a true conversation with bytes changed, cut short, or both.
inline Bytes hostile(const Bytes& good, std::mt19937& random) {
  const auto below = [&](size_t n) { return random() % n; };
  const auto some_byte = [&] { return static_cast<char>(random()); };
  if (below(4) == 0) {
    Bytes noise(1 + below(300));
    for (char& byte : noise) byte = some_byte();
    return noise;
  }
  Bytes bytes = good;
  for (size_t changes = below(6); changes > 0; --changes)
    bytes[below(bytes.size())] = below(2) ? some_byte() : static_cast<char>(0xff * below(2));
  if (below(2) == 0) bytes.resize(1 + below(bytes.size()));
  return bytes;
}

/// Writes, without waiting for a peer that no longer reads, and says that nothing follows.
inline void say(const UniqueFd& socket, const Bytes& bytes) {
  (void)send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  shutdown(socket.get(), SHUT_WR);
}

}  // namespace chainpump::fakes
