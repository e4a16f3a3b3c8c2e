// A system that refuses threads: as long as this lives, each new one asks for a stack that no
// address space has (room = 0), or for one of 1 GiB where there is room for `room` of them. Needs
// no rights; changes the whole process.
#pragma once

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <fstream>

namespace chainpump::fakes {

class NoThreads {
 public:
  explicit NoThreads(int room = 0) {
    BOOST_REQUIRE_EQUAL(pthread_getattr_default_np(&before_), 0);
    BOOST_REQUIRE_EQUAL(getrlimit(RLIMIT_AS, &limit_before_), 0);
    pthread_attr_t attributes = before_;
    constexpr size_t kGiB = size_t{1} << 30;
    BOOST_REQUIRE_EQUAL(pthread_attr_setstacksize(&attributes, room > 0 ? kGiB : kGiB << 20), 0);
    BOOST_REQUIRE_EQUAL(pthread_setattr_default_np(&attributes), 0);
    if (room == 0) return;
    size_t pages = 0;
    BOOST_REQUIRE(std::ifstream("/proc/self/statm") >> pages);
    const size_t now = pages * static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const rlimit limit = {now + kGiB * static_cast<size_t>(room) + kGiB / 2,
                          limit_before_.rlim_max};
    BOOST_REQUIRE_EQUAL(setrlimit(RLIMIT_AS, &limit), 0);
  }
  ~NoThreads() {
    pthread_setattr_default_np(&before_);
    setrlimit(RLIMIT_AS, &limit_before_);
  }
  NoThreads(const NoThreads&) = delete;
  NoThreads& operator=(const NoThreads&) = delete;

 private:
  pthread_attr_t before_;
  rlimit limit_before_;
};

}  // namespace chainpump::fakes
