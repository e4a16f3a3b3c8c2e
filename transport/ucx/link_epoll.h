// The event descriptor of a UCX link: an epoll set of its own, so that what users sleep on stays
// the same while the connections behind it come and go. One thread.
#pragma once

#include <sys/epoll.h>

#include "base/check.h"
#include "base/unique_fd.h"

namespace chainpump::transport {

class LinkEpoll {
 public:
  LinkEpoll() : epoll_(epoll_create1(EPOLL_CLOEXEC)) { CHECK(epoll_.valid()); }

  int fd() const { return epoll_.get(); }
  void add(int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    CHECK_EQ(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event), 0);
  }
  /// Before the descriptor is closed.
  void remove(int fd) { epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

 private:
  UniqueFd epoll_;
};

}  // namespace chainpump::transport
