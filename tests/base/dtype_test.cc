#include "base/dtype.h"

#include <boost/test/unit_test.hpp>

namespace chainpump {

BOOST_AUTO_TEST_CASE(dtype_table_is_consistent) {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto type = static_cast<DType>(i);
    BOOST_TEST((info(type).type == type));
    BOOST_TEST((dtype_from_name(to_string(type)) == type));
    BOOST_TEST((dtype_from_gguf(info(type).gguf_type) == type));
  }
  BOOST_TEST(row_bytes(DType::q4_1, 576) == 360);
  BOOST_TEST(!dtype_from_gguf(99).has_value());
}

}  // namespace chainpump
