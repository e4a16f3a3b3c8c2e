// Sockets with a name in a folder: how the processes of a service find each other. Any thread.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace chainpump::transport::rpc {

/// A socket that listens under this path, for its user alone (0600); one that a dead process left
/// there is replaced. The path stays when the socket is closed. invalid_argument: the path is too
/// long; no_room.
Result<UniqueFd> listen_unix(const std::string& path);

/// not_found: nobody listens there; no_room; internal. Does not wait.
Result<UniqueFd> connect_unix(const std::string& path);

}  // namespace chainpump::transport::rpc
