#include "graph/prefix_memory.h"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <list>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace chainpump::graph {
namespace {

using Chain = std::vector<uint64_t>;

BOOST_AUTO_TEST_SUITE(prefix_memory)

BOOST_AUTO_TEST_CASE(counts_leading_blocks_for_each_lane) {
  PrefixMemory memory(100);
  memory.remember(Chain{1, 2, 3}, 0);
  memory.remember(Chain{1, 2}, 5);
  memory.remember(Chain{7}, kMaxLanes - 1);
  const auto seen = memory.num_seen(Chain{1, 2, 3, 4});
  BOOST_TEST(seen[0] == 3);
  BOOST_TEST(seen[5] == 2);
  BOOST_TEST(seen[1] == 0);
  BOOST_TEST(memory.num_seen(Chain{7, 1})[kMaxLanes - 1] == 1);
  BOOST_TEST(memory.num_seen(Chain{2, 3})[0] == 2);  // a hash says nothing of where it stood
  BOOST_TEST(memory.num_seen(Chain{9, 1, 2})[0] == 0);
  BOOST_TEST(memory.num_seen(Chain{})[0] == 0);
}

BOOST_AUTO_TEST_CASE(forgets_a_lane) {
  PrefixMemory memory(100);
  memory.remember(Chain{1, 2, 3}, 0);
  memory.remember(Chain{1, 2}, 5);
  memory.forget(0);
  BOOST_TEST(memory.num_seen(Chain{1, 2, 3})[0] == 0);
  BOOST_TEST(memory.num_seen(Chain{1, 2, 3})[5] == 2);
  BOOST_TEST(memory.size() == 2u);
}

BOOST_AUTO_TEST_CASE(is_bounded_and_keeps_beginnings) {
  PrefixMemory memory(4);
  memory.remember(Chain{1, 2, 3}, 0);
  memory.remember(Chain{10, 11}, 0);
  BOOST_TEST(memory.size() == 4u);
  BOOST_TEST(memory.num_seen(Chain{1, 2, 3})[0] == 2);
  memory.remember(Chain{20, 21, 22, 23, 24, 25}, 0);
  BOOST_TEST(memory.size() == 4u);
  BOOST_TEST(memory.num_seen(Chain{20, 21, 22, 23, 24, 25})[0] == 4);
  PrefixMemory none(0);
  none.remember(Chain{1}, 0);
  BOOST_TEST(none.size() == 0u);
}

// Random chains that share beginnings, against a list that is searched.
BOOST_AUTO_TEST_CASE(stays_equal_to_its_model) {
  for (uint32_t seed = 1; seed <= 30; ++seed) {
    std::mt19937 random(seed);
    const size_t room = 1 + random() % 20;
    PrefixMemory memory(room);
    std::list<std::pair<uint64_t, std::set<size_t>>> model;  // the most recent first
    for (int step = 0; step < 500; ++step) {
      Chain chain;
      for (uint32_t i = 0; i < random() % 8; ++i) chain.push_back(i * 10 + random() % 2);
      const size_t lane = random() % 3;
      if (random() % 20 == 0) {
        memory.forget(lane);
        for (auto& [hash, lanes] : model) lanes.erase(lane);
        model.remove_if([](const auto& entry) { return entry.second.empty(); });
      } else {
        memory.remember(chain, lane);
        for (size_t i = std::min(chain.size(), room); i-- > 0;) {
          const auto is_it = [&](const auto& entry) { return entry.first == chain[i]; };
          const auto found = std::find_if(model.begin(), model.end(), is_it);
          if (found == model.end())
            model.push_front({chain[i], {}});
          else
            model.splice(model.begin(), model, found);
          model.front().second.insert(lane);
        }
        if (model.size() > room) model.resize(room);
      }
      BOOST_TEST_REQUIRE(memory.size() == model.size());
      for (size_t l = 0; l < 3; ++l) {
        int32_t expected = 0;
        for (const uint64_t hash : chain) {
          const bool seen = std::any_of(model.begin(), model.end(), [&](const auto& entry) {
            return entry.first == hash && entry.second.count(l) == 1;
          });
          if (!seen) break;
          ++expected;
        }
        BOOST_TEST_REQUIRE(memory.num_seen(chain)[l] == expected);
      }
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::graph
