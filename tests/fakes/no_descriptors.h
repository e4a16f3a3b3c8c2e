// A process that gets no descriptor more, as long as this lives; those it has stay. Needs no
// rights; changes the whole process.
#pragma once

#include <sys/resource.h>

#include <boost/test/unit_test.hpp>

namespace chainpump::fakes {

class NoDescriptors {
 public:
  NoDescriptors() {
    BOOST_REQUIRE_EQUAL(getrlimit(RLIMIT_NOFILE, &before_), 0);
    const rlimit none = {0, before_.rlim_max};
    BOOST_REQUIRE_EQUAL(setrlimit(RLIMIT_NOFILE, &none), 0);
  }
  ~NoDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;

 private:
  rlimit before_;
};

}  // namespace chainpump::fakes
