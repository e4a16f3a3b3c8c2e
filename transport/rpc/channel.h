// Where control is spoken, and how one gets there: the path of a Unix socket, for processes of one
// machine and user, or a network address, "10.0.0.2:7300" or "[fd00::2]:7300", which always means
// mutual TLS with the cluster's certificates. What is told of a process (LaneAddress, spawn's
// answer) is such a text; nothing above this file has to know of which kind it is. Any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "transport/rpc/credentials.h"

namespace chainpump::transport::rpc {

/// A connection that is about to be used: what every client is made from.
struct Channel {
  /// Of a Unix socket, or one end of a socketpair.
  Channel(UniqueFd given) : socket(std::move(given)) {}
  Channel(UniqueFd given, std::shared_ptr<const Credentials> own, Expected whom, std::string where)
      : socket(std::move(given)),
        credentials(std::move(own)),
        expected(std::move(whom)),
        address(std::move(where)) {}

  UniqueFd socket;
  // On a network, where it may be connecting still; then the first call's answer says how it went:
  std::shared_ptr<const Credentials> credentials = {};  // null: it is no network
  Expected expected = {};
  std::string address = {};
};

/// Whether it is no path.
bool is_network_address(std::string_view address);

/// To a path as connect_unix(); to a network address with `credentials`, without which it is
/// refused (invalid_argument), to somebody who is `expected`. Does not wait.
Result<Channel> open_channel(const std::string& address,
                             const std::shared_ptr<const Credentials>& credentials,
                             const Expected& expected);

/// A socket that listens at a numeric network address; port 0 is any. invalid_argument: not such an
/// address, or none of this machine; no_room.
Result<UniqueFd> listen_network(const std::string& address);
/// "10.0.0.2:40123": where it listens, or our end of a connection.
std::string own_address(const UniqueFd& socket);

/// "gpu-1:7300" as numeric addresses. not_found; invalid_argument. Asks the system's resolver, and
/// may wait as long as that does.
Result<std::string> resolve(const std::string& host_and_port);

/// Whether it is a numeric address and port of the loopback.
bool is_loopback_address(const std::string& address);

}  // namespace chainpump::transport::rpc
