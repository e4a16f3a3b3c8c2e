#include "base/half.h"

#include <boost/test/unit_test.hpp>
#include <cmath>

namespace chainpump {

BOOST_AUTO_TEST_CASE(f16_round_trips_every_value) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = f16_to_float(static_cast<uint16_t>(h));
    if (std::isnan(f)) {
      BOOST_TEST_REQUIRE(std::isnan(f16_to_float(float_to_f16(f))));
      continue;
    }
    BOOST_TEST_REQUIRE(float_to_f16(f) == h);
#ifdef __FLT16_MANT_DIG__
    BOOST_TEST_REQUIRE(f == static_cast<float>(std::bit_cast<_Float16>(static_cast<uint16_t>(h))));
#endif
  }
}

#ifdef __FLT16_MANT_DIG__
BOOST_AUTO_TEST_CASE(f16_rounds_as_the_compiler_does) {
  for (uint64_t u = 0; u < 0x100000000; u += 4099) {
    const float f = std::bit_cast<float>(static_cast<uint32_t>(u));
    if (std::isnan(f)) continue;
    BOOST_TEST_REQUIRE(float_to_f16(f) == std::bit_cast<uint16_t>(static_cast<_Float16>(f)));
  }
}
#endif

BOOST_AUTO_TEST_CASE(bf16_rounds_to_nearest_even) {
  BOOST_TEST(float_to_bf16(1.0f) == 0x3f80);
  BOOST_TEST(float_to_bf16(std::bit_cast<float>(0x3f808000u)) == 0x3f80);  // tie to even
  BOOST_TEST(float_to_bf16(std::bit_cast<float>(0x3f818000u)) == 0x3f82);
  BOOST_TEST(float_to_bf16(std::bit_cast<float>(0x3f808001u)) == 0x3f81);
  BOOST_TEST(std::isnan(bf16_to_float(float_to_bf16(NAN))));
  BOOST_TEST(std::isinf(bf16_to_float(float_to_bf16(3.4e38f))));
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = bf16_to_float(static_cast<uint16_t>(h));
    if (!std::isnan(f)) BOOST_TEST_REQUIRE(float_to_bf16(f) == h);
  }
}

}  // namespace chainpump
