#include "base/byte_io.h"

#include <boost/test/unit_test.hpp>

namespace chainpump {

BOOST_AUTO_TEST_CASE(reader_stays_failed_after_running_out) {
  std::vector<std::byte> bytes;
  ByteWriter writer(bytes);
  writer.write<uint16_t>(0x1234);
  writer.write_string("abc");
  ByteReader reader(bytes);
  BOOST_TEST(reader.read<uint16_t>() == 0x1234);
  BOOST_TEST(reader.read<uint64_t>() == 0u);
  BOOST_TEST(!reader.ok());
  BOOST_TEST(reader.take(1).empty());
  BOOST_TEST(reader.remaining() == 3u);
}

BOOST_AUTO_TEST_CASE(reader_refuses_lengths_near_the_end_of_the_address_space) {
  const std::vector<std::byte> bytes(8);
  ByteReader reader(bytes);
  BOOST_TEST(reader.take(UINT64_MAX).empty());
  BOOST_TEST(!reader.ok());
}

}  // namespace chainpump
