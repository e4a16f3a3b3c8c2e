// The program of a rank process: serves the control connection in the main thread and runs the
// stage actor beside it.
#pragma once

#include "base/unique_fd.h"

namespace chainpump::actors {

/// The descriptor on which a rank finds its control connection.
inline constexpr int kControlFd = 3;
/// The descriptor of the listening socket for others that want to connect, if it is given one.
inline constexpr int kListenFd = 4;

/// Serves until shutdown or until the connection ends, and returns the process's exit status. When
/// the connection ends without a shutdown, whoever wanted this rank is gone: the process ends at
/// once.
int run_rank(UniqueFd control);

}  // namespace chainpump::actors
