#include "graph/router.h"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace chainpump::graph {
namespace {

std::vector<TokenId> tokens_from(TokenId first, int count) {
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

/// A router of which all lanes serve and have room.
struct Fixture {
  explicit Fixture(int num_lanes = 3) : router({.num_lanes = num_lanes, .block_tokens = 4}) {
    for (int i = 0; i < num_lanes; ++i) {
      router.set_state(lane(i), LaneState::serving);
      report(i, 0, 0);
    }
  }
  static LaneId lane(int index) { return LaneId(static_cast<uint8_t>(index)); }
  void report(int index, uint64_t num_taken, int64_t waiting_tokens, int32_t num_running = 0,
              int32_t num_free_blocks = 1000) {
    router.on_stats(lane(index), {.num_taken = num_taken,
                                  .num_free_blocks = num_free_blocks,
                                  .queue_room = 100,
                                  .waiting_tokens = waiting_tokens,
                                  .num_running = num_running,
                                  .tokens_per_s = 1000});
  }
  Route route(const std::vector<TokenId>& prompt, uint64_t salt = 0) {
    const auto result =
        router.route({.id = RequestId(++last_id), .cache_salt = salt, .prompt = prompt});
    BOOST_TEST_REQUIRE(result.ok());
    return *result;
  }
  int lane_of(const std::vector<TokenId>& prompt, uint64_t salt = 0) {
    return route(prompt, salt).lane.value;
  }
  Router router;
  uint64_t last_id = 0;
};

BOOST_AUTO_TEST_SUITE(router)

BOOST_AUTO_TEST_CASE(refuses_while_no_lane_serves) {
  Router router({.num_lanes = 2, .block_tokens = 4});
  router.set_state(LaneId(1), LaneState::draining);
  const auto prompt = tokens_from(0, 5);
  const auto refused = router.route({.id = RequestId(1), .prompt = prompt});
  BOOST_TEST_REQUIRE(!refused.ok());
  BOOST_TEST((refused.error().code == ErrorCode::overloaded));
  BOOST_TEST(refused.error().message.find("of 2, 1 drain, 0 do not answer, 1 are not up") !=
             std::string::npos);
  BOOST_TEST(refused.error().message.ends_with("; retry after 1 s"));
  BOOST_TEST(router.num_requests() == 0u);
}

BOOST_AUTO_TEST_CASE(equal_lanes_take_turns) {
  Fixture f;
  std::vector<int> counts(3);
  for (int i = 0; i < 30; ++i) {
    const Route route = f.route(tokens_from(i * 100, 20));
    ++counts[route.lane.value];
    f.report(route.lane.value, static_cast<uint64_t>(counts[route.lane.value]), 0);
    if (i % 3 == 2)
      BOOST_TEST(counts == std::vector<int>(3, i / 3 + 1), boost::test_tools::per_element());
  }
}

BOOST_AUTO_TEST_CASE(the_shortest_wait_wins) {
  Fixture f;
  f.report(0, 0, 5000);
  f.report(1, 0, 300);
  f.report(2, 0, 4000);
  const Route route = f.route(tokens_from(0, 100));
  BOOST_TEST(route.lane.value == 1);
  BOOST_TEST(route.first_token_s == 0.4, boost::test_tools::tolerance(1e-9));
}

BOOST_AUTO_TEST_CASE(a_faster_lane_may_have_more_waiting) {
  Fixture f(2);
  f.report(0, 0, 1000);
  f.router.on_stats(
      LaneId(1),
      {.num_free_blocks = 1000, .queue_room = 9, .waiting_tokens = 3000, .tokens_per_s = 10'000});
  BOOST_TEST(f.lane_of(tokens_from(0, 100)) == 1);
}

BOOST_AUTO_TEST_CASE(until_a_lane_knows_its_speed_the_plans_is_taken) {
  Router router({.num_lanes = 2, .block_tokens = 4, .tokens_per_s_prior = 500});
  router.set_state(LaneId(0), LaneState::serving);
  const auto prompt = tokens_from(0, 100);
  const auto route = router.route({.id = RequestId(1), .prompt = prompt});
  BOOST_TEST_REQUIRE(route.ok());
  BOOST_TEST(route->first_token_s == 0.2, boost::test_tools::tolerance(1e-9));
}

BOOST_AUTO_TEST_CASE(missing_kv_room_counts_as_waiting) {
  Fixture f(2);
  f.report(0, 0, 0, 0, 5);  // 26 blocks needed: 21 missing, 84 ms
  f.report(1, 0, 60, 0, 26);
  BOOST_TEST(f.lane_of(tokens_from(0, 100)) == 1);
  Fixture g(2);
  g.report(0, 0, 0, 0, 5);
  g.report(1, 0, 120, 0, 26);
  BOOST_TEST(g.lane_of(tokens_from(0, 100)) == 0);
}

BOOST_AUTO_TEST_CASE(a_full_queue_comes_last) {
  Fixture f(2);
  f.router.on_stats(LaneId(0), {.num_free_blocks = 1000, .queue_room = 0, .tokens_per_s = 1000});
  f.report(1, 0, 100'000);
  BOOST_TEST(f.lane_of(tokens_from(0, 10)) == 1);
  f.router.on_stats(LaneId(1), {.num_taken = 1, .waiting_tokens = 9, .tokens_per_s = 1000});
  BOOST_TEST(f.lane_of(tokens_from(50, 10)) == 0);  // all full: let the best one say so
}

BOOST_AUTO_TEST_CASE(among_alike_the_one_that_runs_least) {
  Fixture f;
  f.report(0, 0, 0, 7);
  f.report(1, 0, 0, 3);
  f.report(2, 0, 0, 5);
  BOOST_TEST(f.lane_of(tokens_from(0, 10)) == 1);
  f.report(1, 1, 0, 4);
  BOOST_TEST(f.lane_of(tokens_from(50, 10)) == 1);
  f.report(1, 2, 0, 5);
  BOOST_TEST(f.lane_of(tokens_from(90, 10)) == 2);  // as few, and its turn is due
}

BOOST_AUTO_TEST_CASE(a_burst_between_two_reports_is_spread) {
  Fixture f(4);
  std::vector<int> counts(4);
  for (int i = 0; i < 100; ++i) ++counts[static_cast<size_t>(f.lane_of(tokens_from(i * 100, 50)))];
  BOOST_TEST(counts == std::vector<int>(4, 25), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(what_a_lane_reports_is_not_counted_twice) {
  Fixture f(2);
  f.report(1, 0, 150);
  BOOST_TEST(f.lane_of(tokens_from(0, 100)) == 0);    // 100 against 250
  BOOST_TEST(f.lane_of(tokens_from(200, 100)) == 0);  // 200 against 250
  f.report(0, 1, 100);                                // knows of the first only
  BOOST_TEST(f.lane_of(tokens_from(400, 100)) == 1);  // 300 against 250
  f.report(0, 2, 0);                                  // has done them both
  const Route route = f.route(tokens_from(600, 100));
  BOOST_TEST(route.lane.value == 0);
  BOOST_TEST(route.first_token_s == 0.1, boost::test_tools::tolerance(1e-9));
}

BOOST_AUTO_TEST_CASE(a_lane_that_says_nothing_is_given_no_more) {
  Fixture f(1);
  const auto prompt = tokens_from(0, 3);
  uint64_t count = 0;
  Result<Route> last = f.router.route({.id = RequestId(1), .prompt = prompt});
  for (; last.ok() && count < 100'000; ++count)
    last = f.router.route({.id = RequestId(2 + count), .prompt = prompt});
  BOOST_TEST_REQUIRE(!last.ok());
  BOOST_TEST((last.error().code == ErrorCode::overloaded));
  BOOST_TEST(last.error().message.find("1 do not answer") != std::string::npos);
  BOOST_TEST(f.router.num_requests() == count);
  f.report(0, count, 0);
  BOOST_TEST(f.router.route({.id = RequestId(1'000'000), .prompt = prompt}).ok());
}

BOOST_AUTO_TEST_CASE(an_impossible_count_does_no_harm) {
  Fixture f(1);
  f.route(tokens_from(0, 100));
  f.report(0, ~uint64_t{0}, 0);
  BOOST_TEST(f.route(tokens_from(200, 100)).first_token_s == 0.1,
             boost::test_tools::tolerance(1e-9));
}

BOOST_AUTO_TEST_CASE(a_known_prefix_draws_to_its_lane_until_the_wait_outweighs_it) {
  Fixture f;
  const auto prompt = tokens_from(0, 400);
  const int home = f.lane_of(prompt);
  for (int i = 0; i < 3; ++i) f.report(i, i == home ? 1 : 0, 0);
  Route again = f.route(prompt);
  BOOST_TEST(again.lane.value == home);
  BOOST_TEST(again.tokens_hit == 396);
  f.report(home, 2, 300);
  BOOST_TEST(f.lane_of(prompt) == home);  // 0.304 s against 0.4 s
  f.report(home, 3, 500);
  BOOST_TEST(f.lane_of(prompt) != home);
}

BOOST_AUTO_TEST_CASE(prefixes_of_other_tenants_are_unknown) {
  Fixture f;
  const auto prompt = tokens_from(0, 400);
  const int home = f.lane_of(prompt, 1);
  f.report(home, 1, 0);
  BOOST_TEST(f.route(prompt, 2).tokens_hit == 0);
  BOOST_TEST(f.route(prompt, 1).tokens_hit == 396);
}

BOOST_AUTO_TEST_CASE(a_request_sticks_to_its_lane) {
  Fixture f;
  const auto prompt = tokens_from(0, 20);
  const RequestId id(77);
  const LaneId lane = f.router.route({.id = id, .prompt = prompt})->lane;
  f.report(lane.value, 1, 1'000'000);
  f.router.set_state(lane, LaneState::draining);
  const Route again = *f.router.route({.id = id, .prompt = prompt});
  BOOST_TEST((again.lane == lane));
  BOOST_TEST((f.router.lane_of(id) == lane));
  BOOST_TEST(f.lane_of(tokens_from(50, 20)) != lane.value);
  f.router.end(id);
  BOOST_TEST(!f.router.lane_of(id).has_value());
  BOOST_TEST((f.router.route({.id = id, .prompt = prompt})->lane != lane));
}

BOOST_AUTO_TEST_CASE(a_dead_lane_loses_its_requests_its_stats_and_its_prefixes) {
  Fixture f(2);
  const auto prompt = tokens_from(0, 400);
  const RequestId id(77);
  const LaneId lane = f.router.route({.id = id, .prompt = prompt})->lane;
  f.router.set_state(lane, LaneState::dead);
  BOOST_TEST(!f.router.lane_of(id).has_value());
  f.report(lane.value, 1, 0);  // late
  const Route moved = *f.router.route({.id = id, .prompt = prompt});
  BOOST_TEST((moved.lane != lane));
  BOOST_TEST(moved.tokens_hit == 0);
  f.router.set_state(lane, LaneState::serving);
  f.router.set_state(moved.lane, LaneState::draining);
  BOOST_TEST(f.route(prompt).tokens_hit == 0);
  BOOST_TEST(f.router.num_requests() == 2u);
}

BOOST_AUTO_TEST_CASE(a_lane_that_drained_may_serve_again) {
  Fixture f(1);
  const auto prompt = tokens_from(0, 400);
  f.route(prompt);
  f.router.set_state(LaneId(0), LaneState::draining);
  f.router.set_state(LaneId(0), LaneState::serving);
  BOOST_TEST(f.route(prompt).tokens_hit == 396);  // still the same process
}

// Prompts of very different lengths arrive at 85 % of what the lanes can do together; reports are
// up to half a second old. First tokens should come much sooner than by turns.
BOOST_AUTO_TEST_CASE(waits_are_shorter_than_by_turns) {
  constexpr double kRate = 2250;
  double routed_s = 0;
  double turns_s = 0;
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    for (const bool by_turns : {false, true}) {
      std::mt19937 random(seed);
      std::exponential_distribution<double> arrival(9000 * 0.85 / 1040.5);
      Fixture f(4);
      std::vector<double> busy_until(4);
      std::vector<uint64_t> num_routed(4);
      double now = 0;
      double next_report = 0;
      for (int i = 0; i < 1000; ++i) {
        now += arrival(random);
        for (; next_report <= now; next_report += 0.5) {
          for (size_t l = 0; l < 4; ++l) {
            const double waiting = std::max(busy_until[l] - next_report, 0.0) * kRate;
            f.router.on_stats(Fixture::lane(static_cast<int>(l)),
                              {.num_taken = num_routed[l],
                               .num_free_blocks = 1 << 30,
                               .queue_room = 1 << 30,
                               .waiting_tokens = static_cast<int64_t>(waiting),
                               .tokens_per_s = kRate});
          }
        }
        const int length = random() % 4 == 0 ? 4000 : 1 + static_cast<int>(random() % 108);
        auto lane = static_cast<size_t>(f.lane_of(tokens_from(i * 5000, length)));
        if (by_turns) lane = static_cast<size_t>(i) % 4;
        ++num_routed[lane];
        busy_until[lane] = std::max(busy_until[lane], now) + length / kRate;
        (by_turns ? turns_s : routed_s) += busy_until[lane] - now;
      }
    }
  }
  BOOST_TEST_MESSAGE("mean time to first token " << routed_s / 5'000 << " s, by turns "
                                                 << turns_s / 5'000 << " s");
  BOOST_TEST(routed_s < 0.6 * turns_s);
}

// Conversations: each turn's prompt begins with the turn before. Almost every turn should find its
// prefix where it was, and no lane should be left out.
BOOST_AUTO_TEST_CASE(conversations_stay_where_their_prefix_is) {
  std::mt19937 random(4);
  Fixture f(4);
  std::vector<uint64_t> num_routed(4);
  int64_t tokens = 0;
  int64_t hit = 0;
  std::vector<int> lengths(40, 0);
  for (int turn = 0; turn < 2000; ++turn) {
    const auto who = random() % 40;
    const int before = lengths[who] >= 2000 ? 0 : lengths[who];
    lengths[who] = before + 100;
    const Route route = f.route(tokens_from(static_cast<int>(who) * 10'000, lengths[who]));
    ++num_routed[route.lane.value];
    f.report(route.lane.value, num_routed[route.lane.value], 0, static_cast<int>(random() % 4));
    tokens += before;
    hit += std::min(route.tokens_hit, before);
  }
  BOOST_TEST(static_cast<double>(hit) > 0.95 * static_cast<double>(tokens));
  BOOST_TEST(*std::min_element(num_routed.begin(), num_routed.end()) > 100u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::graph
