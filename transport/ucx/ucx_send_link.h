// The sending end of a UCX link. Made by ucx_connect(); see transport/link.h for what it does. One
// thread.
#pragma once

#include <memory>
#include <string>

#include "transport/link.h"
#include "transport/ucx/ucx_context.h"

namespace chainpump::transport {

/// Begins to connect to a listener, "127.0.0.1:4711": the link is in state connecting until the
/// receiver has accepted its hello, and fails with invalid_argument naming what the receiver
/// refused (secret, epoch, edge, ...), disconnected if nobody listens, deadline_exceeded after
/// kConnectDeadline (transport/end_state.h).
/// Errors here: invalid_argument for options or an address that cannot be; internal if UCX cannot.
Result<std::unique_ptr<SendLink>> ucx_connect(std::shared_ptr<UcxContext> context,
                                              const std::string& address,
                                              const LinkOptions& options);

}  // namespace chainpump::transport
