// A block's copy is the block, in every layer and type, and touches no other.
#include "models/kv_pool.h"

#include <boost/test/unit_test.hpp>
#include <cstring>
#include <vector>

namespace chainpump::models {

BOOST_AUTO_TEST_SUITE(kv_pool)

BOOST_AUTO_TEST_CASE(a_copy_is_equal_in_every_layer_and_touches_no_other) {
  for (const DType type : {DType::f32, DType::bf16, DType::f16, DType::int8}) {
    const KvPoolShape shape{type, 3, 5, 2, 24};
    auto pool = KvPool::create(shape);
    BOOST_REQUIRE(pool.ok());
    const auto block_bytes = static_cast<size_t>(kv_block_bytes(type, 2, 24));
    std::byte* const all = pool->layer(0).data;
    const size_t num_bytes = block_bytes * 3 * 5;
    for (size_t i = 0; i < num_bytes; ++i) all[i] = static_cast<std::byte>(i * 7 + i / 251);
    std::vector<std::byte> expected(all, all + num_bytes);
    for (size_t layer = 0; layer < 3; ++layer) {
      pool->copy_block(static_cast<int32_t>(layer), KvBlockId(4), KvBlockId(1));
      std::byte* const at = expected.data() + layer * 5 * block_bytes;
      std::memcpy(at + block_bytes, at + 4 * block_bytes, block_bytes);
    }
    BOOST_TEST((std::memcmp(all, expected.data(), num_bytes) == 0), to_string(type));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::models
