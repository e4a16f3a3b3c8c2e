// What a new sequencer does with what stages hold of the one before, where that is in the way.
#include <boost/test/unit_test.hpp>

#include "tests/graph/sequencer_lane.h"

namespace chainpump::graph {

BOOST_AUTO_TEST_SUITE(sequencer_adopt)

const SequenceId kBefore(1 << 20);

/// Stage 1 holds four positions of a request whose identity is 7.
Sequencer with_an_orphan(int32_t max_sequences) {
  SequencerOptions options = small_options();
  options.max_sequences = max_sequences;
  Sequencer sequencer(options);
  const std::vector<StageHoldings> stages = {
      {.stage = StageIndex(1),
       .held = {{.id = kBefore, .num_positions = 4, .identity = 7, .table = {KvBlockId(0)}}},
       .logged = {}}};
  sequencer.adopt(stages, TimePoint{});
  return sequencer;
}

/// The next microbatch once a request of that identity has come.
Microbatch next_after(Sequencer& sequencer, uint64_t identity) {
  Request asked = request(1, 4, 4);
  asked.identity = identity;
  BOOST_TEST_REQUIRE(sequencer.submit(asked, TimePoint{}).ok());
  std::optional<Microbatch> next = sequencer.next();
  BOOST_TEST_REQUIRE(next.has_value());
  return *std::move(next);
}

/// A stage has places for max_sequences, whoever described them: the seed that showed it had one.
BOOST_AUTO_TEST_CASE(who_is_not_asked_for_gives_way_to_who_is) {
  Sequencer sequencer = with_an_orphan(1);
  BOOST_TEST(sequencer.stats().num_orphans == 1);
  const Microbatch first = next_after(sequencer, 8);
  BOOST_TEST(first.descriptors.size() == 1u);
  BOOST_TEST_REQUIRE(first.released.size() == 1u);
  BOOST_TEST((first.released[0] == kBefore));
  BOOST_TEST(sequencer.stats().num_orphans == 0);
}

/// Its own request finds it there, and nothing is released.
BOOST_AUTO_TEST_CASE(who_is_asked_for_takes_its_own_place) {
  Sequencer sequencer = with_an_orphan(1);
  const Microbatch first = next_after(sequencer, 7);
  BOOST_TEST(first.released.empty());
  BOOST_TEST_REQUIRE(first.slices.size() == 1u);
  BOOST_TEST((first.slices[0].id == kBefore));
  BOOST_TEST(sequencer.stats().sequences_adopted == 1u);
}

/// What stages have logged of it may be asked for once it is: others' rows do not take its place.
BOOST_AUTO_TEST_CASE(while_one_may_be_asked_for_nothing_logged_gives_way) {
  Sequencer sequencer = with_an_orphan(2);
  BOOST_TEST(next_after(sequencer, 8).keep_log);
}

/// Blocks of four positions.
StageHoldings::Held held(uint32_t id, std::vector<KvBlockId> table) {
  return {.id = SequenceId(id),
          .num_positions = static_cast<int32_t>(table.size()) * 4,
          .identity = id,
          .table = std::move(table)};
}

/// Stage 2 has not seen that the block was let go of, and given to another.
BOOST_AUTO_TEST_CASE(of_two_that_had_a_block_in_turn_the_later_is_kept) {
  Sequencer sequencer(small_options(3));
  const std::vector<StageHoldings> stages = {
      {.stage = StageIndex(2), .held = {held(5, {KvBlockId(0)})}, .logged = {}},
      {.stage = StageIndex(1), .held = {held(6, {KvBlockId(0)})}, .logged = {}}};
  sequencer.adopt(stages, TimePoint{});
  BOOST_TEST(sequencer.stats().num_orphans == 1);
  const Microbatch first = next_after(sequencer, 6);
  BOOST_TEST_REQUIRE(first.released.size() == 1u);
  BOOST_TEST((first.released[0] == SequenceId(5)));
  BOOST_TEST(sequencer.stats().sequences_adopted == 1u);
}

BOOST_AUTO_TEST_CASE(those_that_began_alike_are_both_kept) {
  Sequencer sequencer(small_options(3));
  const std::vector<StageHoldings> stages = {
      {.stage = StageIndex(1),
       .held = {held(5, {KvBlockId(0), KvBlockId(1)}), held(6, {KvBlockId(0), KvBlockId(2)})},
       .logged = {}},
      {.stage = StageIndex(2), .held = {held(5, {KvBlockId(0)})}, .logged = {}}};
  sequencer.adopt(stages, TimePoint{});
  BOOST_TEST(sequencer.stats().num_orphans == 2);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
