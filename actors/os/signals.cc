#include "actors/os/signals.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/thread.h"
#include "base/unique_fd.h"

namespace chainpump::os {

struct TerminationSignals::Impl {
  std::function<void(int)> on_signal;
  sigset_t mask_before;
  UniqueFd signal_fd;
  UniqueFd stop_fd;
  std::thread thread;

  void main() {
    for (;;) {
      pollfd ready[2] = {{signal_fd.get(), POLLIN, 0}, {stop_fd.get(), POLLIN, 0}};
      if (poll(ready, 2, -1) < 0) continue;
      if (ready[1].revents != 0) return;
      signalfd_siginfo info;
      if (read(signal_fd.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info)))
        on_signal(static_cast<int>(info.ssi_signo));
    }
  }
};

TerminationSignals::TerminationSignals(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<TerminationSignals>> TerminationSignals::create(
    std::function<void(int)> on_signal) {
  auto impl = std::make_unique<Impl>();
  impl->on_signal = std::move(on_signal);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  impl->signal_fd.reset(signalfd(-1, &set, SFD_CLOEXEC));
  impl->stop_fd.reset(eventfd(0, EFD_CLOEXEC));
  if (!impl->signal_fd.valid() || !impl->stop_fd.valid())
    return make_error(ErrorCode::no_room, "signalfd: {}", strerror(errno));
  pthread_sigmask(SIG_BLOCK, &set, &impl->mask_before);
  Result<std::thread> thread =
      start_thread("the thread for signals", [raw = impl.get()] { raw->main(); });
  if (!thread.ok()) {
    pthread_sigmask(SIG_SETMASK, &impl->mask_before, nullptr);
    return std::move(thread).error();
  }
  impl->thread = *std::move(thread);
  return std::unique_ptr<TerminationSignals>(new TerminationSignals(std::move(impl)));
}

TerminationSignals::~TerminationSignals() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(impl_->stop_fd.get(), &one, sizeof(one));
  impl_->thread.join();
  pthread_sigmask(SIG_SETMASK, &impl_->mask_before, nullptr);
}

}  // namespace chainpump::os
