// What UCX says of an endpoint's lanes, its connections by one transport each. The endpoint's
// thread.
#pragma once

#include <string>

struct ucp_ep;

namespace chainpump::transport {

/// Whether anything that is sent would arrive.
bool lanes_stand(ucp_ep* endpoint);
/// "tcp/lo", "posix+cma": those that UCX chose. Only after a message has come. Costly.
std::string lanes_text(ucp_ep* endpoint);

}  // namespace chainpump::transport
