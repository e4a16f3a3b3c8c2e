// TLS round a connection's stream, and what is asked of the peer before the first message: its
// certificate's signature, role and name. Includes the RPC library's headers: for
// transport/rpc/*.cc only. The loop's thread.
#pragma once

#include <kj/async-io.h>

#include <memory>
#include <string>
#include <utility>

#include "transport/rpc/credentials.h"

namespace chainpump::transport::rpc {

/// The caller's end of `raw`, which may still be connecting to `address`. Fails with
/// invalid_argument if either end's certificate is refused or the peer is somebody else, and with
/// disconnected; both name the address. What breaks later is disconnected, too.
kj::Promise<kj::Own<kj::AsyncIoStream>> secure_client(
    kj::Own<kj::AsyncIoStream> raw, std::shared_ptr<const Credentials> credentials,
    Expected expected, std::string address);

/// The server's end; the peer has the role and is given with its name.
kj::Promise<std::pair<kj::Own<kj::AsyncIoStream>, Identity>> secure_server(
    kj::Own<kj::AsyncIoStream> raw, std::shared_ptr<const Credentials> credentials, Role role,
    std::string address);

}  // namespace chainpump::transport::rpc
