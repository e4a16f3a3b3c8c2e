#include "transport/crc32c.h"

#include <boost/test/unit_test.hpp>
#include <string_view>
#include <vector>

#include "base/philox.h"

namespace chainpump::transport {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

BOOST_AUTO_TEST_SUITE(crc32c_of_bytes)

// RFC 3720, appendix B.4, and the usual check value.
BOOST_AUTO_TEST_CASE(known_answers) {
  std::vector<std::byte> zeros(32, std::byte{0});
  std::vector<std::byte> ones(32, std::byte{0xff});
  std::vector<std::byte> up;
  std::vector<std::byte> down;
  for (int i = 0; i < 32; ++i) {
    up.push_back(static_cast<std::byte>(i));
    down.push_back(static_cast<std::byte>(31 - i));
  }
  for (const auto function : {crc32c, crc32c_reference}) {
    BOOST_TEST(function(bytes_of("123456789"), 0) == 0xE3069283u);
    BOOST_TEST(function({}, 0) == 0u);
    BOOST_TEST(function(zeros, 0) == 0x8A9136AAu);
    BOOST_TEST(function(ones, 0) == 0x62A8AB43u);
    BOOST_TEST(function(up, 0) == 0x46DD794Eu);
    BOOST_TEST(function(down, 0) == 0x113FDB5Cu);
  }
}

// Lengths round every boundary of the interleaved chains (3 x 256, 3 x 4096), odd alignments, and
// any split continues.
BOOST_AUTO_TEST_CASE(equals_the_reference) {
  std::vector<std::byte> data(40000);
  for (size_t i = 0; i < data.size(); ++i) {
    data[i] = static_cast<std::byte>(philox4x32({static_cast<uint32_t>(i), 0, 0, 0}, {1, 2})[0]);
  }
  const std::span<const std::byte> all(data);
  for (const size_t around : {0u, 8u, 64u, 256u, 768u, 1536u, 4096u, 12288u, 24576u, 36864u}) {
    for (size_t length = around < 9 ? 0 : around - 9; length < around + 10; ++length) {
      for (const size_t offset : {0u, 1u, 7u}) {
        const auto part = all.subspan(offset, length);
        BOOST_REQUIRE_EQUAL(crc32c(part), crc32c_reference(part));
        const size_t cut = length / 3;
        BOOST_REQUIRE_EQUAL(crc32c(part.subspan(cut), crc32c(part.first(cut))), crc32c(part));
      }
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::transport
