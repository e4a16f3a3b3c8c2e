// Child processes that cannot be lost: spawned with exactly the descriptors they are given, killed
// by the kernel when the thread that spawned them ends, watched by pidfd (no pid reuse), and killed
// and reaped when their owner is destroyed.
//
// Thread rule: a Process belongs to one thread at a time. Spawn only from a thread that lives as
// long as the children may: the kernel's parent-death signal fires when that *thread* ends. A child
// that was spawned is already the new program or spawn() has failed.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace chainpump::os {

struct SpawnOptions {
  std::string program;                                           // path; not searched for
  std::vector<std::string> argv;                                 // argv[0] included
  std::vector<std::pair<std::string, std::string>> environment;  // added to or replacing ours
  /// (our descriptor, the child's number): numbers from 0 to 255 and distinct. 0, 1 and 2 are
  /// inherited as they are unless given here; every other descriptor is closed in the child.
  std::vector<std::pair<int, int>> descriptors;
  bool new_process_group = true;  // a terminal's Ctrl-C then reaches the parent only
};

/// How a process ended.
struct ExitStatus {
  bool signalled = false;
  int code = 0;  // exit code, or signal number
  bool success() const { return !signalled && code == 0; }
};
/// "exit status 3", "killed by SIGSEGV (Segmentation fault)".
std::string to_string(const ExitStatus& status);

class Process {
 public:
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;
  /// Kills (SIGKILL) and reaps the child if that has not been done; waits for at most 5 s.
  ~Process();

  pid_t pid() const { return pid_; }
  /// Readable once the child has ended. Owned by this object.
  int pidfd() const { return pidfd_.get(); }
  /// not_found if the child has been reaped.
  Status kill(int signal);
  /// The end of the child, reaped; the same again on later calls. deadline_exceeded.
  Result<ExitStatus> wait(Duration timeout);

 private:
  friend Result<Process> spawn(const SpawnOptions& options);
  Process(pid_t pid, UniqueFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
  void end() noexcept;

  pid_t pid_ = -1;
  UniqueFd pidfd_;
  std::optional<ExitStatus> status_;
};

/// Starts a program. not_found or invalid_argument (cannot be executed) naming it; no_room when the
/// system has no process or descriptor left; internal.
Result<Process> spawn(const SpawnOptions& options);

/// The path by which this very program can be started again.
std::string self_exe();

/// A connected pair of stream sockets without a name, close-on-exec.
Result<std::pair<UniqueFd, UniqueFd>> make_socketpair();

/// Tells within milliseconds that a watched process has ended, from a thread of its own.
class ProcessWatcher {
 public:
  using OnExit = std::function<void(pid_t pid)>;

  /// `on_exit` runs on the watcher's thread, once per watched process that ends; wait() on its
  /// Process then returns at once.
  static Result<std::unique_ptr<ProcessWatcher>> create(OnExit on_exit);
  /// No callback runs after this returns. Not on the watcher's own thread.
  ~ProcessWatcher();

  /// Any thread. The descriptor is duplicated: the Process may move or end.
  Status watch(const Process& process);

 private:
  struct Impl;
  explicit ProcessWatcher(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chainpump::os
