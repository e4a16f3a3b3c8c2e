// The gateway as a process of its own, `chainpump gateway`, started by `chainpump serve` only: it
// serves the deployment of the service's folder on a socket that it is given. SIGTERM drains it:
// requests that run may end, up to a bound. One thread, the command's.
#pragma once

#include "base/unique_fd.h"
#include "cli/cluster.h"
#include "cli/deploy.h"

namespace chainpump::cli {

// The descriptors that it is started with:
inline constexpr int kListenerFd = 3;  // a listening socket
// A pipe that it writes to from the thread that serves, each time that this looks round, about ten
// times a second: whoever does not read from it hinders nothing. It closes it when it ends.
inline constexpr int kNewsFd = 4;
inline constexpr char kBeatNews = '.';
inline constexpr char kReadyNews = 'r';  // once

struct GatewayOptions {
  DeployOptions deploy;
  int32_t drain_s = 30;  // for requests that run when it is told to end
  ClusterOptions cluster;
};

/// The exit status: 0 after a drain, else as in exit_status.h, with the reason on standard error.
int run_gateway(const GatewayOptions& options);

}  // namespace chainpump::cli
