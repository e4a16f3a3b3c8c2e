// The sockets on which UCX listens: one for a listener, and one in every worker, by which the lanes
// of its connections are made. UCX authenticates nobody there, and in builds with assertions (as
// Debian's) 64 zero bytes sent to a listener abort the process. So a door is open only while
// somebody is expected, and meanwhile, on the loopback, the kernel lets in nothing but whole
// messages of a connection's beginning. Who speaks UCX's protocol on purpose still gets past that:
// SECURITY.md says what is left.
//
// A door does not own its socket, which UCX closes. One thread.
#pragma once

#include <functional>
#include <vector>

namespace chainpump::transport {

class Door {
 public:
  /// The doors of this process that `create` opened.
  static std::vector<Door> opened_by(const std::function<void()>& create);

  /// Nobody can connect any more: what comes is dropped unanswered, as by a firewall. Connections
  /// that were made before stay.
  void shut() const;
  /// For a listener's door: on the loopback each segment with data must be one message of UCX's
  /// connection manager, a header with the length of what follows. Other segments are dropped, also
  /// on the connections made through this door. Nothing on other networks, which may cut messages.
  void only_whole_messages() const;

 private:
  explicit Door(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace chainpump::transport
