#include "actors/rank_processes.h"

#include <csignal>

#include "actors/rank.h"
#include "base/check.h"

namespace chainpump::actors {

RankProcesses::RankProcesses(std::string program, OnExit on_exit, std::vector<std::string> flags)
    : program_(std::move(program)), on_exit_(std::move(on_exit)), flags_(std::move(flags)) {}

RankProcesses::~RankProcesses() = default;

Result<std::unique_ptr<RankProcesses>> RankProcesses::create(std::string program, OnExit on_exit,
                                                             std::vector<std::string> flags) {
  std::unique_ptr<RankProcesses> made(
      new RankProcesses(std::move(program), std::move(on_exit), std::move(flags)));
  ASSIGN_OR_RETURN(made->watcher_,
                   os::ProcessWatcher::create([raw = made.get()](pid_t pid) { raw->reap(pid); }));
  return made;
}

Result<UniqueFd> RankProcesses::spawn(RankId id, const UniqueFd& listener) {
  ASSIGN_OR_RETURN(auto sockets, os::make_socketpair());
  os::SpawnOptions options;
  options.program = program_;
  options.argv = {"chainpump", "rank", fmt::format("rank-{}", id)};
  options.argv.insert(options.argv.end(), flags_.begin(), flags_.end());
  options.descriptors = {{sockets.second.get(), kControlFd}};
  if (listener.valid()) options.descriptors.emplace_back(listener.get(), kListenFd);
  ASSIGN_OR_RETURN(os::Process process, os::spawn(options));
  const pid_t pid = process.pid();
  const std::lock_guard lock(mutex_);
  const auto [entry, is_new] = ranks_.emplace(pid, Rank{id, std::move(process)});
  CHECK(is_new);
  RETURN_IF_ERROR(watcher_->watch(entry->second.process));
  return std::move(sockets.first);
}

void RankProcesses::kill(RankId id) {
  const std::lock_guard lock(mutex_);
  for (auto& [pid, rank] : ranks_)
    if (rank.id == id) (void)rank.process.kill(SIGKILL);
}

void RankProcesses::reap(pid_t pid) {
  RankId id;
  std::string how;
  {
    const std::lock_guard lock(mutex_);
    const auto found = ranks_.find(pid);
    if (found == ranks_.end()) return;
    const Result<os::ExitStatus> status = found->second.process.wait(std::chrono::seconds(1));
    how = status.ok() ? os::to_string(*status) : status.error().message;
    id = found->second.id;
    ranks_.erase(found);
  }
  on_exit_(id, std::move(how));
}

}  // namespace chainpump::actors
