#include "graph/block_index.h"

#include <boost/test/unit_test.hpp>
#include <map>
#include <random>
#include <vector>

namespace chainpump::graph {
namespace {

int32_t find_any(const BlockIndex& index, uint64_t hash) {
  return index.find(hash, [](int32_t) { return true; });
}

BOOST_AUTO_TEST_SUITE(block_index)

BOOST_AUTO_TEST_CASE(an_empty_index_finds_nothing) {
  BOOST_TEST(find_any(BlockIndex(0), 7) == -1);
  BOOST_TEST(find_any(BlockIndex(3), 7) == -1);
}

BOOST_AUTO_TEST_CASE(the_caller_says_which_of_equal_hashes_it_means) {
  BlockIndex index(3);
  for (int32_t block : {4, 5, 6}) index.insert(9, block);
  for (int32_t block : {4, 5, 6})
    BOOST_TEST(index.find(9, [&](int32_t found) { return found == block; }) == block);
  BOOST_TEST(index.find(9, [](int32_t found) { return found == 7; }) == -1);
  index.replace(9, 5, 7);
  BOOST_TEST(index.find(9, [](int32_t found) { return found == 7; }) == 7);
  BOOST_TEST(index.find(9, [](int32_t found) { return found == 5; }) == -1);
  index.clear();
  BOOST_TEST(index.size() == 0);
  BOOST_TEST(find_any(index, 9) == -1);
}

// Few different slots, so that runs are long, wrap round the end and are cut in the middle.
BOOST_AUTO_TEST_CASE(stays_equal_to_a_plain_map) {
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    std::mt19937 random(seed);
    const int32_t room = 1 + static_cast<int32_t>(random() % 40);
    BlockIndex index(room);
    std::map<int32_t, uint64_t> expected;  // by block
    for (int step = 0; step < 2000; ++step) {
      const auto block = static_cast<int32_t>(random() % static_cast<uint32_t>(room));
      const auto entry = expected.find(block);
      if (entry == expected.end()) {
        const uint64_t hash = random() % 64;
        index.insert(hash, block);
        expected[block] = hash;
      } else {
        index.erase(entry->second, block);
        expected.erase(entry);
      }
      BOOST_TEST_REQUIRE(index.size() == static_cast<int32_t>(expected.size()));
      for (int32_t wanted = 0; wanted < room; ++wanted) {
        const auto known = expected.find(wanted);
        const uint64_t hash = known == expected.end() ? random() % 64 : known->second;
        const int32_t found = index.find(hash, [&](int32_t b) { return b == wanted; });
        BOOST_TEST_REQUIRE(found == (known == expected.end() ? -1 : wanted));
      }
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::graph
