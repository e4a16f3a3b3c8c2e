#include "base/thread.h"

#include <boost/test/unit_test.hpp>

#include "tests/fakes/no_threads.h"

using namespace chainpump;

BOOST_AUTO_TEST_CASE(a_refused_thread_is_an_error_in_words) {
  {
    const fakes::NoThreads none;
    const Result<std::thread> refused = start_thread("the thread for tests", [] {});
    BOOST_REQUIRE(!refused.ok());
    BOOST_TEST((refused.error().code == ErrorCode::no_room));
    BOOST_TEST(refused.error().message.find("cannot start the thread for tests: ") == 0u);
  }
  bool ran = false;
  Result<std::thread> thread = start_thread("the thread for tests", [&] { ran = true; });
  BOOST_REQUIRE(thread.ok());
  thread->join();
  BOOST_TEST(ran);
}
