// The program of a rank process: serves the control connection in the main thread and runs the
// stage actor beside it.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "transport/rpc/control_types.h"

namespace chainpump::actors {

/// What a node's agent says to each of its ranks, as flags of its program; empty: there is no
/// cluster.
struct RankTerms {
  std::string node = {};          // its machine's name
  std::string data_address = {};  // numeric, on the trusted network; empty: the loopback
  std::string certificates = {};  // folder; for a listening socket on a network
  std::string models = {};  // folder where model files are looked for by their names; empty: none
  std::string cache_folder = {};  // as LoadParams, of this machine; empty: what that says
  std::string weights = {};       // folder of fetched ones; empty: none can be
};
/// The flags that say them, and are read again by the program (cli/main.cc).
std::vector<std::string> to_flags(const RankTerms& terms);

/// The descriptor on which a rank finds its control connection.
inline constexpr int kControlFd = 3;
/// The descriptor of the listening socket for others that want to connect, if it is given one.
inline constexpr int kListenFd = 4;

/// Makes a coordinator's words this machine's: a folder and cores that are those of another (a rank
/// that is not at home is not pinned), and where links may be. invalid_argument: on no trusted
/// network.
Status adapt_to(const RankTerms& terms, transport::rpc::LoadParams& params);

/// Serves until shutdown or until the connection ends, and returns the process's exit status. When
/// the connection ends without a shutdown, whoever wanted this rank is gone: the process ends at
/// once.
int run_rank(UniqueFd control, const RankTerms& terms = {});

}  // namespace chainpump::actors
