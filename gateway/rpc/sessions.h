// The capabilities of the public interface, as a client holds them. Includes the RPC library's
// headers: for gateway/rpc/*.cc only. The loop's thread.
#pragma once

#include <memory>

#include "gateway/rpc/serving.h"
#include "schemas/chainpump.capnp.h"

namespace chainpump::gateway::rpc {

/// The bootstrap capability of one connection.
kj::Own<capnp::Capability::Server> make_gateway_server(Serving& serving,
                                                       std::shared_ptr<Peer> peer);

kj::Own<schema::api::Operator::Server> make_operator_server(Serving& serving,
                                                            std::shared_ptr<Peer> peer);

}  // namespace chainpump::gateway::rpc
