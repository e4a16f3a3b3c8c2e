// What a new sequencer does with what stages hold of the one before, where that is in the way.
#include <boost/test/unit_test.hpp>

#include "tests/graph/sequencer_lane.h"

namespace chainpump::graph {

BOOST_AUTO_TEST_SUITE(sequencer_adopt)

/// A stage has places for max_sequences, whoever described them: the seed that showed it had one.
BOOST_AUTO_TEST_CASE(who_is_not_asked_for_gives_way_to_who_is) {
  SequencerOptions options = small_options();
  options.max_sequences = 1;
  Sequencer sequencer(options);
  const SequenceId before(1 << 20);
  const std::vector<StageHoldings> stages = {
      {.stage = StageIndex(1),
       .held = {{.id = before, .num_positions = 4, .identity = 7, .table = {KvBlockId(0)}}},
       .logged = {}}};
  sequencer.adopt(stages, TimePoint{});
  BOOST_TEST(sequencer.stats().num_orphans == 1);
  Request other = request(1, 4, 4);
  other.identity = 8;
  BOOST_TEST_REQUIRE(sequencer.submit(other, TimePoint{}).ok());
  const std::optional<Microbatch> first = sequencer.next();
  BOOST_TEST_REQUIRE(first.has_value());
  BOOST_TEST(first->descriptors.size() == 1u);
  BOOST_TEST_REQUIRE(first->released.size() == 1u);
  BOOST_TEST((first->released[0] == before));
  BOOST_TEST(sequencer.stats().num_orphans == 0);
}

/// Its own request finds it there, and nothing is released.
BOOST_AUTO_TEST_CASE(who_is_asked_for_takes_its_own_place) {
  SequencerOptions options = small_options();
  options.max_sequences = 1;
  Sequencer sequencer(options);
  const SequenceId before(1 << 20);
  const std::vector<StageHoldings> stages = {
      {.stage = StageIndex(1),
       .held = {{.id = before, .num_positions = 4, .identity = 7, .table = {KvBlockId(0)}}},
       .logged = {}}};
  sequencer.adopt(stages, TimePoint{});
  Request again = request(1, 4, 4);
  again.identity = 7;
  BOOST_TEST_REQUIRE(sequencer.submit(again, TimePoint{}).ok());
  const std::optional<Microbatch> first = sequencer.next();
  BOOST_TEST_REQUIRE(first.has_value());
  BOOST_TEST(first->released.empty());
  BOOST_TEST_REQUIRE(first->slices.size() == 1u);
  BOOST_TEST((first->slices[0].id == before));
  BOOST_TEST(sequencer.stats().sequences_adopted == 1u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
