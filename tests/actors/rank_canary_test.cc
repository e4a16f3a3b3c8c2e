// A lane without requests shows that tokens get through it, and nobody but those who ask notices.
#include <boost/test/unit_test.hpp>

#include "tests/actors/ranks.h"

namespace chainpump::actors {
namespace {

/// A second client, which asks for nothing.
struct Listener {
  rpc::LaneStats told;
  size_t num_tokens = 0;

  explicit Listener(Ranks& ranks) {
    Answer<Ok> answer;
    ranks.stages[0]->attach({.client = 77,
                             .lane = graph::LaneId(0),
                             .sink = [this](const rpc::LaneResults& results) -> Status {
                               told = results.stats;
                               num_tokens += results.tokens.size();
                               return ok_status();
                             },
                             .reply = answer.reply()});
    BOOST_TEST_REQUIRE(answer.ok());
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(an_idle_lane_is_crossed_by_a_canary_that_nothing_counts) {
  Ranks ranks(2);
  ranks.open();
  ranks.tick_until([&] { return ranks.stats.crossed_ago_ns >= 0; });
  BOOST_TEST(ranks.stats.epoch == 1u);
  BOOST_TEST(ranks.stats.num_running == 0);
  BOOST_TEST(ranks.stats.num_free_blocks == 4);
  BOOST_TEST(ranks.num_messages == 1u);
  BOOST_TEST(ranks.tokens.empty());
  for (size_t rank = 0; rank < 2; ++rank) {
    Answer<rpc::RankStats> stats;
    ranks.stages[rank]->stats({.reply = stats.reply()});
    BOOST_TEST_REQUIRE(stats.ok());
    BOOST_TEST((*stats.held)->value().stage.steps == 0u);
    BOOST_TEST((*stats.held)->value().stage.tokens == 0u);
  }
}

BOOST_AUTO_TEST_CASE(whoever_attaches_is_told_of_the_last_crossing_at_once) {
  Ranks ranks(2);
  ranks.open();
  ranks.tick_until([&] { return ranks.stats.crossed_ago_ns >= 0; });
  const Listener listener(ranks);
  BOOST_TEST(listener.told.epoch == 1u);
  BOOST_TEST(listener.told.crossed_ago_ns >= 0);
}

BOOST_AUTO_TEST_CASE(a_request_shows_it_to_those_who_wait_for_nothing_too) {
  Ranks ranks(2);
  ranks.open();
  const Listener listener(ranks);
  const Answer<Ok> end = ranks.submit(0, 5, 6);
  ranks.tick_until([&] { return end.come(); });
  BOOST_TEST(listener.told.crossed_ago_ns >= 0);
  BOOST_TEST(listener.num_tokens == 0u);
}

}  // namespace chainpump::actors
