// Ranks as processes of this one: started, watched by pidfd, ended. Used by one machine's agent,
// wherever it lives.
//
// Thread rule: spawn() in a thread that lives as long as the ranks may (actors/os/process.h);
// kill() in any.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "actors/os/process.h"
#include "base/ids.h"

namespace chainpump::actors {

class RankProcesses {
 public:
  /// Called once per rank that ended, with how; on a thread of its own.
  using OnExit = std::function<void(RankId id, std::string how)>;

  /// `flags` are given to each rank's program.
  static Result<std::unique_ptr<RankProcesses>> create(std::string program, OnExit on_exit,
                                                       std::vector<std::string> flags = {});
  ~RankProcesses();

  /// Starts a rank and returns our end of its control connection, with whose end the rank ends.
  /// `listener`, if valid, is where it takes other connections.
  Result<UniqueFd> spawn(RankId id, const UniqueFd& listener);
  void kill(RankId id);

 private:
  struct Rank {
    RankId id;
    os::Process process;
  };
  RankProcesses(std::string program, OnExit on_exit, std::vector<std::string> flags);
  void reap(pid_t pid);

  const std::string program_;
  const OnExit on_exit_;
  const std::vector<std::string> flags_;
  mutable std::mutex mutex_;
  std::map<pid_t, Rank> ranks_;
  std::unique_ptr<os::ProcessWatcher> watcher_;  // ends first: its thread uses the ranks
};

}  // namespace chainpump::actors
