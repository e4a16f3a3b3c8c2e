#include "transport/waiter.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/check.h"

namespace chainpump::transport {
namespace {

// The shortest spin worth starting with once something came soon after a sleep began.
constexpr Duration kSpinStart = std::chrono::microseconds(5);
// By so much a sleeping core may be late. In a ring of stages each waits for one that was as late:
// without this allowance all of them would go on sleeping, and being late, for good.
constexpr Duration kWakeUp = std::chrono::microseconds(150);

}  // namespace

Waiter::Waiter(const WaiterOptions& options)
    : options_(options),
      wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      epoll_fd_(epoll_create1(EPOLL_CLOEXEC)),
      spin_(options.spin_max) {
  CHECK(wake_fd_.valid());
  CHECK(epoll_fd_.valid());
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = wake_fd_.get();
  CHECK_EQ(epoll_ctl(epoll_fd_.get(), EPOLL_CTL_ADD, wake_fd_.get(), &event), 0);
}

void Waiter::set_options(const WaiterOptions& options) {
  options_ = options;
  spin_ = options.spin_max;
}

void Waiter::add(Pollable pollable) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = pollable.event_fd;
  CHECK_EQ(epoll_ctl(epoll_fd_.get(), EPOLL_CTL_ADD, pollable.event_fd, &event), 0);
  pollables_.push_back(std::move(pollable));
}

void Waiter::remove(int event_fd) {
  // The descriptor may have been closed already, which took it out of the epoll set.
  epoll_ctl(epoll_fd_.get(), EPOLL_CTL_DEL, event_fd, nullptr);
  std::erase_if(pollables_, [&](const Pollable& p) { return p.event_fd == event_fd; });
}

bool Waiter::poll_once() {
  bool any = woken_.exchange(false, std::memory_order_acquire);
  for (Pollable& pollable : pollables_) any |= pollable.progress();
  return any;
}

// wake() sets the flag, then writes: either poll_once() sees the flag, or the sleep ends here. The
// write of a wake-up whose flag was seen already may end one later sleep early; none is lost.
bool Waiter::sleep_until(TimePoint deadline) {
  const Duration left = deadline - steady_clock().now();
  if (left.count() <= 0) return false;
  timespec timeout{};
  timeout.tv_sec = left.count() / 1'000'000'000;
  timeout.tv_nsec = left.count() % 1'000'000'000;
  std::array<epoll_event, 8> events;
  const int n = epoll_pwait2(epoll_fd_.get(), events.data(), events.size(), &timeout, nullptr);
  CHECK_MSG(n >= 0 || errno == EINTR, "epoll_pwait2: errno {}", errno);
  bool woken = false;
  for (int i = 0; i < n; ++i) {
    if (events[static_cast<size_t>(i)].data.fd != wake_fd_.get()) continue;
    uint64_t count;
    woken = read(wake_fd_.get(), &count, sizeof count) > 0;
    woken_.exchange(false, std::memory_order_acquire);
  }
  return woken;
}

bool Waiter::wait_until(TimePoint deadline) {
  const Clock& clock = steady_clock();
  const TimePoint start = clock.now();
  const TimePoint spin_end = options_.spin_always ? deadline : std::min(start + spin_, deadline);
  do {
    if (poll_once()) return true;
  } while (clock.now() < spin_end);

  // Spinning did not pay; it is worth trying again only if what wakes us comes soon.
  spin_ = spin_ / 2;
  while (clock.now() < deadline) {
    bool armed = true;
    for (Pollable& pollable : pollables_) armed &= pollable.arm();
    const bool woken = armed && sleep_until(deadline);
    if (poll_once() || woken) {
      if (clock.now() - start <= options_.spin_max + kWakeUp) {
        spin_ = std::min(options_.spin_max, std::max(4 * spin_, kSpinStart));
      }
      return true;
    }
  }
  return false;
}

void Waiter::wake() {
  woken_.store(true, std::memory_order_release);
  const uint64_t one = 1;
  // Full means that a wake-up is pending already.
  [[maybe_unused]] const ssize_t n = write(wake_fd_.get(), &one, sizeof one);
}

}  // namespace chainpump::transport
