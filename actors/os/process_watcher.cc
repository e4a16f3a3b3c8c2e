#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>

#include "actors/os/process.h"
#include "base/thread.h"

namespace chainpump::os {

struct ProcessWatcher::Impl {
  OnExit on_exit;
  UniqueFd epoll_fd;
  UniqueFd stop_fd;
  std::mutex mutex;
  std::map<pid_t, UniqueFd> watched;
  std::thread thread;

  void main() {
    for (;;) {
      std::array<epoll_event, 16> events;
      const int n = epoll_wait(epoll_fd.get(), events.data(), events.size(), -1);
      for (int i = 0; i < n; ++i) {
        if (events[static_cast<size_t>(i)].data.u64 == 0) return;
        const auto pid = static_cast<pid_t>(events[static_cast<size_t>(i)].data.u64);
        {
          const std::lock_guard lock(mutex);
          const auto found = watched.find(pid);
          if (found == watched.end()) continue;
          epoll_ctl(epoll_fd.get(), EPOLL_CTL_DEL, found->second.get(), nullptr);
          watched.erase(found);
        }
        on_exit(pid);
      }
    }
  }
};

ProcessWatcher::ProcessWatcher(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<ProcessWatcher>> ProcessWatcher::create(OnExit on_exit) {
  auto impl = std::make_unique<Impl>();
  impl->on_exit = std::move(on_exit);
  impl->epoll_fd.reset(epoll_create1(EPOLL_CLOEXEC));
  impl->stop_fd.reset(eventfd(0, EFD_CLOEXEC));
  epoll_event event{EPOLLIN, {.u64 = 0}};
  if (!impl->epoll_fd.valid() || !impl->stop_fd.valid() ||
      epoll_ctl(impl->epoll_fd.get(), EPOLL_CTL_ADD, impl->stop_fd.get(), &event) != 0)
    return make_error(ErrorCode::no_room, "process watcher: {}", strerror(errno));
  ASSIGN_OR_RETURN(impl->thread, start_thread("the thread that watches processes",
                                              [raw = impl.get()] { raw->main(); }));
  return std::unique_ptr<ProcessWatcher>(new ProcessWatcher(std::move(impl)));
}

ProcessWatcher::~ProcessWatcher() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(impl_->stop_fd.get(), &one, sizeof(one));
  impl_->thread.join();
}

Status ProcessWatcher::watch(const Process& process) {
  UniqueFd copy(fcntl(process.pidfd(), F_DUPFD_CLOEXEC, 3));
  if (!copy.valid())
    return make_error(ErrorCode::no_room, "watching process {}: {}", process.pid(),
                      strerror(errno));
  const std::lock_guard lock(impl_->mutex);
  const int fd = copy.get();
  impl_->watched.insert_or_assign(process.pid(), std::move(copy));
  epoll_event event{EPOLLIN, {.u64 = static_cast<uint64_t>(process.pid())}};
  if (epoll_ctl(impl_->epoll_fd.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return make_error(ErrorCode::no_room, "watching process {}: {}", process.pid(),
                      strerror(errno));
  return ok_status();
}

}  // namespace chainpump::os
