// Where ranks come from: a process each, or actors in this process. Used by the node agent, in its
// thread, which lives as long as the ranks may. Here, in actors/rank_processes.h and for the
// agent's sockets a RankId is the number of a process (ProcessId), whatever place it takes in the
// plan.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/rank_port.h"
#include "actors/stage_actor.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"

namespace chainpump::actors {

class RankHost {
 public:
  /// Called once per rank that ended, with how ("killed by SIGKILL"); on any thread. Its number may
  /// be used again from then on.
  using OnExit = std::function<void(RankId rank, std::string how)>;

  struct Found {
    RankId rank;
    std::shared_ptr<RankPort> port;  // null: it does not listen; most likely it is about to end
  };

  virtual ~RankHost() = default;
  /// Those that run already, for a coordinator before this one; their ends are told from here on.
  /// Once, before any spawn().
  virtual Result<std::vector<Found>> find() { return std::vector<Found>(); }
  /// Null: it has ended already, which is told, too.
  virtual Result<std::shared_ptr<RankPort>> spawn(RankId rank) = 0;
  /// Makes sure that the rank ends, whatever it is doing.
  virtual void kill(RankId rank) = 0;
  /// Does what nobody has asked for, and says after how long it is to be called again; nothing:
  /// never.
  virtual std::optional<Duration> look() { return std::nullopt; }
};

/// Ranks are processes of `program rank`, connected by a socketpair and watched by pidfd. The
/// thread that serves their ports keeps off `busy_cores`, where there are others.
Result<std::unique_ptr<RankHost>> make_process_host(std::string program, RankHost::OnExit on_exit,
                                                    const std::vector<int>& busy_cores);

/// Ranks are stage actors of `system` with loopback links. kill() cannot stop a computation.
std::unique_ptr<RankHost> make_local_host(caf::actor_system& system, RankHost::OnExit on_exit);

}  // namespace chainpump::actors
