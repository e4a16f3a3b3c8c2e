#include "base/mapped_file.h"

#include <boost/test/unit_test.hpp>

namespace chainpump {

BOOST_AUTO_TEST_CASE(mapped_file_refuses_what_has_no_true_size) {
  BOOST_TEST((MappedFile::open("/dev/zero").error().code == ErrorCode::bad_file));
  BOOST_TEST((MappedFile::open("/").error().code == ErrorCode::bad_file));
  BOOST_TEST((MappedFile::open("/does/not/exist").error().code == ErrorCode::not_found));
  BOOST_TEST((MappedFile::open("/proc/self/status").error().code == ErrorCode::bad_file));
}

BOOST_AUTO_TEST_CASE(mapped_file_shows_the_bytes) {
  const Result<MappedFile> file = MappedFile::open("CMakeLists.txt");
  BOOST_TEST_REQUIRE(file.ok());
  BOOST_TEST(file->bytes().size() > 100u);
}

}  // namespace chainpump
