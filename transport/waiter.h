// How an idle rank waits: it spins for a moment (a frame that comes soon costs no wake-up), then
// sleeps on the event descriptors of its links. The moment is halved by each wait that outlasts it
// and grows with each that would have ended in it but for a wake-up. Any thread may wake it;
// everything else belongs to one thread. With spin never, which the plan says where ranks outnumber
// cores, it sleeps at once.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "base/clock.h"
#include "base/unique_fd.h"

namespace chainpump::transport {

/// Something that can make progress and be slept on; both kinds of link are.
struct Pollable {
  std::function<bool()> progress;
  std::function<bool()> arm;
  int event_fd = -1;
};

struct WaiterOptions {
  bool spin_always = false;
  Duration spin_max{0};  // adaptive up to this; 0: never spin
};

class Waiter {
 public:
  explicit Waiter(const WaiterOptions& options);

  /// How to wait from now on; a rank learns its spin policy only with its plan.
  void set_options(const WaiterOptions& options);

  void add(Pollable pollable);
  void remove(int event_fd);

  /// Returns when something made progress, wake() was called, or `deadline` has passed.
  /// True unless it was the deadline.
  bool wait_until(TimePoint deadline);

  /// Ends the present or the next wait. Any thread; async-signal-safe.
  void wake();

 private:
  bool poll_once();
  bool sleep_until(TimePoint deadline);

  WaiterOptions options_;
  std::vector<Pollable> pollables_;
  UniqueFd wake_fd_;
  UniqueFd epoll_fd_;
  std::atomic<bool> woken_{false};
  Duration spin_{0};
};

}  // namespace chainpump::transport
