#include "base/dtype.h"
#include "base/kv_layout.h"

#include <boost/test/unit_test.hpp>

namespace chainpump {

BOOST_AUTO_TEST_CASE(dtype_table_is_consistent) {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto type = static_cast<DType>(i);
    BOOST_TEST((info(type).type == type));
    BOOST_TEST((dtype_from_name(to_string(type)) == type));
    if (type == DType::int8)
      BOOST_TEST(!dtype_from_gguf(info(type).gguf_type).has_value());  // no tensor of a file has it
    else
      BOOST_TEST((dtype_from_gguf(info(type).gguf_type) == type));
  }
  BOOST_TEST(row_bytes(DType::q4_1, 576) == 360);
  BOOST_TEST(!dtype_from_gguf(99).has_value());
}

BOOST_AUTO_TEST_CASE(kv_blocks_are_counted_with_their_scales) {
  BOOST_TEST(kv_block_bytes(DType::f32, 3, 64) == 2 * 3 * 32 * 64 * 4);
  BOOST_TEST(kv_block_bytes(DType::bf16, 3, 64) == 2 * 3 * 32 * 64 * 2);
  BOOST_TEST(kv_block_bytes(DType::int8, 3, 64) == 2 * 3 * 32 * (64 + 4));
  BOOST_TEST(kv_block_bytes(DType::f16, 1, 20) == 2 * 32 * 32 * 2);  // stored as 32 dimensions
  BOOST_TEST(!is_kv_type(DType::q8_0));
}

}  // namespace chainpump
