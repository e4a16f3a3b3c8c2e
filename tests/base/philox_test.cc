#include "base/philox.h"

#include <boost/test/unit_test.hpp>

namespace chainpump {

// Known answers published with the authors' Random123 library (kat_vectors, philox4x32 10).
BOOST_AUTO_TEST_CASE(philox_known_answers) {
  BOOST_TEST((philox4x32({0, 0, 0, 0}, {0, 0}) ==
              PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t f = 0xffffffff;
  BOOST_TEST((philox4x32({f, f, f, f}, {f, f}) ==
              PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  BOOST_TEST(
      (philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
       PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

BOOST_AUTO_TEST_CASE(philox_uniform_is_open_and_depends_on_every_argument) {
  double sum = 0;
  for (uint64_t position = 0; position < 10000; ++position) {
    const double u = philox_uniform(42, 0, position);
    BOOST_TEST_REQUIRE(u > 0.0);
    BOOST_TEST_REQUIRE(u < 1.0);
    sum += u;
  }
  BOOST_TEST(std::abs(sum / 10000 - 0.5) < 0.01);
  BOOST_TEST(philox_uniform(42, 0, 7) != philox_uniform(43, 0, 7));
  BOOST_TEST(philox_uniform(42, 0, 7) != philox_uniform(42, 1, 7));
  BOOST_TEST(philox_uniform(42, 0, 7) != philox_uniform(42, 0, 8));
  BOOST_TEST(philox_uniform(42, 0, 7) != philox_uniform(uint64_t{42} << 32, 0, 7));
}

}  // namespace chainpump
