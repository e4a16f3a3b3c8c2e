// Who computes what again, and from what, after stages were lost.
#include "graph/lane_fill.h"

#include <boost/test/unit_test.hpp>

namespace chainpump::graph {
namespace {

constexpr int32_t kTokens = 4;

std::vector<KvBlockId> table(std::initializer_list<int32_t> blocks) {
  std::vector<KvBlockId> out;
  for (const int32_t block : blocks) out.push_back(KvBlockId(block));
  return out;
}

/// Four stages that hold so much of a sequence with blocks 10 to 14; each logged all of that.
LaneFill lane(std::initializer_list<int32_t> held, bool logged = true) {
  LaneFill fill(4, 10, 8, kTokens);
  int32_t stage = 0;
  for (const int32_t positions : held) {
    fill.hold(StageIndex(stage), table({10, 11, 12, 13, 14}), positions);
    for (int32_t block = 0; logged && stage < 3 && block < 5; ++block)
      fill.log(StageIndex(stage), KvBlockId(10 + block), kTokens);
    ++stage;
  }
  return fill;
}

using Stretch = LaneFill::Stretch;

}  // namespace

BOOST_AUTO_TEST_SUITE(lane_fill)

BOOST_AUTO_TEST_CASE(the_stages_that_lack_a_position_compute_it) {
  const auto blocks = table({10, 11, 12, 13, 14});
  struct Case {
    std::initializer_list<int32_t> held;
    bool logged;
    int32_t from;
    Stretch first;
  };
  const Case cases[] = {
      // Nobody lacks anything but the last position's result: the last stage alone.
      {{10, 10, 10, 10}, true, 0, {9, 10, {3, 3}}},
      // One stage lost everything; what is before it was logged.
      {{10, 0, 10, 10}, true, 0, {0, 9, {1, 1}}},
      {{10, 10, 0, 10}, true, 0, {0, 9, {2, 2}}},
      // The first lacks it: from the tokens.
      {{0, 10, 10, 10}, true, 0, {0, 9, {0, 0}}},
      // Two that are not neighbours: one after the other, but where the result is needed.
      {{10, 0, 10, 0}, true, 0, {0, 9, {1, 1}}},
      {{10, 10, 10, 0}, true, 0, {0, 10, {3, 3}}},
      {{10, 0, 10, 0}, true, 9, {9, 10, {1, 3}}},
      {{0, 10, 0, 0}, true, 0, {0, 9, {0, 0}}},
      // Nothing was logged between them: those between compute, too.
      {{10, 0, 10, 0}, false, 0, {0, 10, {0, 3}}},
      // Nothing was logged: from the tokens.
      {{10, 10, 0, 10}, false, 0, {0, 9, {0, 2}}},
      // Stages behind by what was on its way.
      {{10, 8, 8, 7}, true, 0, {7, 8, {3, 3}}},
      {{10, 8, 8, 7}, true, 8, {8, 10, {1, 3}}},
      {{10, 0, 10, 10}, true, 9, {9, 10, {1, 3}}},
  };
  for (const Case& c : cases) {
    const LaneFill fill = lane(c.held, c.logged);
    const std::optional<Stretch> found = fill.next(blocks, c.from, 10, 9);
    BOOST_REQUIRE(found);
    BOOST_TEST((*found == c.first), "of " << c.from << ": [" << found->begin << ", " << found->end
                                          << ") by " << found->stages.first << " to "
                                          << found->stages.last);
  }
  BOOST_TEST(!lane({10, 10, 10, 10}).next(blocks, 0, 10, 10));
}

BOOST_AUTO_TEST_CASE(what_is_filled_is_held) {
  const auto blocks = table({10, 11, 12, 13, 14});
  LaneFill fill = lane({18, 0, 18, 18});
  int32_t done = 0;
  while (const std::optional<Stretch> stretch = fill.next(blocks, done, 18, 18)) {
    BOOST_TEST(stretch->begin == done);
    done = std::min(stretch->end, done + 5);
    fill.fill(blocks, stretch->begin, done, stretch->stages);
  }
  BOOST_TEST(done == 18);
  BOOST_TEST(!fill.next(blocks, 0, 18, 18));
}

BOOST_AUTO_TEST_CASE(what_a_block_held_before_is_forgotten) {
  const auto blocks = table({10, 11});
  LaneFill fill = lane({8, 0, 8, 8});
  fill.forget(KvBlockId(11));
  BOOST_TEST((fill.next(blocks, 0, 8, 8) == Stretch{0, 4, {1, 1}}));
  BOOST_TEST((fill.next(blocks, 4, 8, 8) == Stretch{4, 8, {0, 3}}));
}

BOOST_AUTO_TEST_CASE(a_log_of_part_of_a_block_serves_that_part) {
  const auto blocks = table({10, 11, 12, 13, 14});
  LaneFill fill(3, 10, 8, kTokens);
  for (const int32_t stage : {0, 2}) fill.hold(StageIndex(stage), blocks, 8);
  fill.log(StageIndex(0), KvBlockId(10), 3);
  BOOST_TEST((fill.next(blocks, 0, 8, 8) == Stretch{0, 3, {1, 1}}));
  BOOST_TEST((fill.next(blocks, 3, 8, 8) == Stretch{3, 8, {0, 1}}));
}

BOOST_AUTO_TEST_CASE(a_block_that_several_share_counts_once_and_the_most_that_is_said_of_it) {
  LaneFill fill(2, 0, 8, kTokens);
  fill.hold(StageIndex(0), table({1, 2}), 8);
  fill.hold(StageIndex(0), table({1, 3}), 5);
  fill.hold(StageIndex(1), table({1, 3}), 5);
  const auto whole = fill.next(table({1, 2}), 0, 8, 8);
  BOOST_REQUIRE(whole);
  BOOST_TEST(whole->begin == 4);  // the other's holding counts for the first block
  // What was logged is of no more than what is held: the rest is somebody else's.
  fill.log(StageIndex(0), KvBlockId(3), 4);
  fill.fill(table({1, 3}), 5, 6, {0, 0});
  BOOST_TEST((fill.next(table({1, 3}), 5, 6, 6) == Stretch{5, 6, {0, 1}}));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
