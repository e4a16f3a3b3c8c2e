// What the tests that lose stages of a chain ask for, and how it must come out.
#pragma once

#include <boost/test/unit_test.hpp>
#include <vector>

#include "tests/actors/chain.h"

namespace chainpump::actors {

inline constexpr int64_t kLogAll = 1 << 20;

struct Asked {
  RequestId id;
  int32_t num_prompt;
  int32_t max_new;
  /// That pass through every stage, once.
  size_t num_positions() const { return static_cast<size_t>(num_prompt + max_new - 1); }
};

inline std::vector<Asked> submit_some(Chain& chain) {
  std::vector<Asked> asked;
  for (const auto& [num_prompt, max_new] : {std::pair(50, 20), {3, 30}, {17, 1}, {40, 40}, {70, 9}})
    asked.push_back({chain.submit(num_prompt, max_new), num_prompt, max_new});
  return asked;
}

inline void step_all(Chain& chain, int times) {
  for (int i = 0; i < times; ++i)
    for (const auto& loop : chain.loops) BOOST_REQUIRE(loop->step().ok());
}

inline void check_answers(Chain& chain, const std::vector<Asked>& asked) {
  for (const Asked& each : asked)
    BOOST_TEST(chain.tokens[each.id] == chain.expected(each.num_prompt, each.max_new));
  BOOST_TEST(chain.num_finished == static_cast<int>(asked.size()));
  BOOST_TEST(chain.first().sequencer().idle());
  BOOST_TEST(chain.first().sequencer().stats().num_free_blocks == kNumBlocks);
  for (const auto& executor : chain.executors)
    BOOST_TEST(executor->sequences().num_sequences() == 0u);
  for (const auto& loop : chain.loops) BOOST_TEST(loop->num_stale() == 0u);
}

}  // namespace chainpump::actors
