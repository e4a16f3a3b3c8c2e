#include "transport/rpc/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace chainpump::transport::rpc {
namespace {

constexpr int kBacklog = 64;

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return make_error(ErrorCode::invalid_argument,
                      "{}: a socket's path may have {} bytes at most, this one has {}", path,
                      sizeof address.sun_path - 1, path.size());
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

}  // namespace

Result<UniqueFd> listen_unix(const std::string& path) {
  ASSIGN_OR_RETURN(const sockaddr_un address, address_of(path));
  ::unlink(path.c_str());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // Nobody can connect before listen(): so the mode is right for everyone who can.
  if (!socket.valid() ||
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::chmod(path.c_str(), 0600) != 0 || ::listen(socket.get(), kBacklog) != 0)
    return make_error(ErrorCode::no_room, "{}: cannot listen: {}", path, std::strerror(errno));
  return socket;
}

Result<UniqueFd> connect_unix(const std::string& path) {
  ASSIGN_OR_RETURN(const sockaddr_un address, address_of(path));
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return make_error(ErrorCode::no_room, "socket: {}", std::strerror(errno));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    const ErrorCode code = error == ENOENT || error == ECONNREFUSED ? ErrorCode::not_found
                           : error == EAGAIN                        ? ErrorCode::no_room
                                                                    : ErrorCode::internal;
    return make_error(code, "{}: cannot connect: {}", path, std::strerror(error));
  }
  return socket;
}

}  // namespace chainpump::transport::rpc
