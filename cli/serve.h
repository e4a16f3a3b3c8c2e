// `chainpump serve`: keeps a deployment up for clients on this machine. This process owns the
// folder and the listening socket, starts the stages' processes and the gateway's, and starts anew
// what dies, up to a bound. It ends with everything it started. One thread, the command's.
#pragma once

#include <string>
#include <vector>

#include "cli/gateway_process.h"

namespace chainpump::cli {

/// `arguments` are the verb's own, for the gateway to read again. The exit status: 0 after a drain;
/// 2 to 5 as in exit_status.h; 128 + N if a second signal N cut the drain short.
int run_serve(const GatewayOptions& options, const std::vector<std::string>& arguments);

}  // namespace chainpump::cli
