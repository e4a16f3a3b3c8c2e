#include "transport/ucx/door.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <string>

namespace chainpump::transport {
namespace {

std::vector<int> listening_sockets() {
  std::vector<int> result;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    const std::string name = entry.path().filename();
    int fd = -1;
    std::from_chars(name.data(), name.data() + name.size(), fd);
    int listens = 0;
    socklen_t length = sizeof listens;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens != 0) {
      result.push_back(fd);
    }
  }
  return result;
}

bool is_on_loopback(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return false;
  if (address.ss_family == AF_INET6) {
    sockaddr_in6 v6;
    std::memcpy(&v6, &address, sizeof v6);
    return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
  }
  sockaddr_in v4;
  std::memcpy(&v4, &address, sizeof v4);
  return address.ss_family == AF_INET && ntohl(v4.sin_addr.s_addr) >> 24 == 127;
}

constexpr sock_filter step(int code, uint32_t k) { return {static_cast<uint16_t>(code), 0, 0, k}; }
/// Skips `then` steps if A equals k (or X), else `otherwise`.
constexpr sock_filter compare(int with, uint32_t k, uint8_t then, uint8_t otherwise) {
  return {static_cast<uint16_t>(BPF_JMP | BPF_JEQ | with), then, otherwise, k};
}
constexpr uint32_t kPass = 0xffffffff;
constexpr uint32_t kDrop = 0;

constexpr std::array kShut = {step(BPF_RET | BPF_K, kDrop)};

// The filter sees a segment from its TCP header on. A message of UCX's connection manager is
// { size_t length; uint8_t status; } padded to 16 bytes, then `length` bytes, some hundreds of
// them: of the length, little endian, only the lower two bytes may be set. A load past the end
// drops.
constexpr std::array kWholeMessages = {
    step(BPF_LD | BPF_B | BPF_ABS, 12),  // data offset, in words, in the upper four bits
    step(BPF_ALU | BPF_RSH | BPF_K, 4),
    step(BPF_ALU | BPF_LSH | BPF_K, 2),
    step(BPF_MISC | BPF_TAX, 0),  // X: where the data begins
    step(BPF_LD | BPF_W | BPF_LEN, 0),
    step(BPF_ALU | BPF_SUB | BPF_X, 0),
    step(BPF_ST, 0),           // M[0]: bytes of data
    compare(BPF_K, 0, 14, 0),  // none: opens, closes or acknowledges
    step(BPF_LD | BPF_H | BPF_IND, 2),
    compare(BPF_K, 0, 0, 11),
    step(BPF_LD | BPF_W | BPF_IND, 4),
    compare(BPF_K, 0, 0, 9),
    step(BPF_LD | BPF_B | BPF_IND, 0),
    step(BPF_ST, 1),
    step(BPF_LD | BPF_B | BPF_IND, 1),
    step(BPF_ALU | BPF_LSH | BPF_K, 8),
    step(BPF_LDX | BPF_MEM, 1),
    step(BPF_ALU | BPF_ADD | BPF_X, 0),
    step(BPF_ALU | BPF_ADD | BPF_K, 16),  // what the segment must hold
    step(BPF_LDX | BPF_MEM, 0),
    compare(BPF_X, 0, 1, 0),
    step(BPF_RET | BPF_K, kDrop),
    step(BPF_RET | BPF_K, kPass),
};

template <size_t N>
void attach(int fd, const std::array<sock_filter, N>& program) {
  sock_fprog filter{N, const_cast<sock_filter*>(program.data())};
  // A system without socket filters (a sandbox in place of a kernel) leaves the door as UCX made
  // it.
  static_cast<void>(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter));
}

}  // namespace

std::vector<Door> Door::opened_by(const std::function<void()>& create) {
  const std::vector<int> before = listening_sockets();
  create();
  std::vector<Door> doors;
  for (const int fd : listening_sockets()) {
    if (std::find(before.begin(), before.end(), fd) == before.end()) doors.push_back(Door(fd));
  }
  return doors;
}

void Door::shut() const { attach(fd_, kShut); }

void Door::only_whole_messages() const {
  if (is_on_loopback(fd_)) attach(fd_, kWholeMessages);
}

}  // namespace chainpump::transport
