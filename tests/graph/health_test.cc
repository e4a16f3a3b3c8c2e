#include "graph/health.h"

#include <boost/test/unit_test.hpp>
#include <optional>
#include <random>

namespace chainpump::graph {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr LaneId kLane{0};
constexpr LaneId kOther{1};

TimePoint at(int64_t ms) { return {milliseconds(ms)}; }
LaneNews serves(uint32_t epoch) { return {.epoch = PlanEpoch(epoch), .serves = true}; }
LaneNews away(uint32_t epoch, std::string why = "stage 'b' died") {
  return {.epoch = PlanEpoch(epoch), .serves = false, .why = std::move(why)};
}

/// One lane that serves, reached, with a crossing at 0.
struct Ready {
  Health health;
  Ready() {
    health.on_joined(kLane);
    health.on_news(kLane, serves(1), at(0));
    health.on_crossing(kLane, PlanEpoch(1), at(0));
  }
  HealthReport report(int64_t ms) const { return health.report(at(ms)); }
};

BOOST_AUTO_TEST_SUITE(health)

BOOST_AUTO_TEST_CASE(a_canary_is_sent_only_when_nothing_has_crossed_for_a_while) {
  Canary canary;
  BOOST_TEST(!canary.due().has_value());
  BOOST_TEST(!canary.ask(true, at(0)));  // no lane is at work
  canary.begin(at(0));
  BOOST_TEST(!canary.ask(true, at(49)));
  BOOST_TEST(!canary.ask(false, at(50)));  // what runs is to show it
  BOOST_TEST(canary.ask(true, at(50)));
  BOOST_TEST(!canary.ask(true, at(51)));  // one is under way
  BOOST_TEST(!canary.last_crossing().has_value());
  canary.on_crossing(at(60));
  BOOST_TEST(!canary.ask(true, at(5059)));
  canary.on_crossing(at(5059));  // a request's
  BOOST_TEST(!canary.ask(true, at(10058)));
  BOOST_TEST(canary.ask(true, at(10059)));
  // It was lost: another one comes in its time.
  BOOST_TEST(!canary.ask(true, at(15058)));
  BOOST_TEST(canary.ask(true, at(15059)));
}

BOOST_AUTO_TEST_CASE(after_a_repair_a_canary_is_due_at_once) {
  Canary canary;
  canary.begin(at(0));
  canary.on_crossing(at(10));
  canary.begin(at(400));
  BOOST_TEST(!canary.last_crossing().has_value());
  BOOST_TEST(canary.ask(true, at(450)));
}

BOOST_AUTO_TEST_CASE(nothing_is_ready_before_a_token_has_crossed) {
  Health health;
  BOOST_TEST(health.report(at(0)).why == "the stages start");
  health.on_joined(kLane);
  BOOST_TEST(health.report(at(0)).why == "lane 0: its stages start");
  health.on_news(kLane, serves(1), at(0));
  BOOST_TEST(health.report(at(0)).why == "lane 0: no token has crossed its stages yet");
  health.on_crossing(kLane, PlanEpoch(1), at(5));
  BOOST_TEST(health.report(at(6)).ready);
  BOOST_TEST(health.report(at(6)).why.empty());
  BOOST_TEST((health.report(at(6)).lanes[0].crossed_ago == milliseconds(1)));
}

BOOST_AUTO_TEST_CASE(a_lane_with_a_slow_stage_is_ready_and_says_so) {
  Ready f;
  LaneNews news = serves(1);
  news.slow = "stage 'b': its steps";
  f.health.on_news(kLane, news, at(100));
  BOOST_TEST(f.report(101).ready);
  BOOST_TEST(f.report(101).lanes[0].slow == "stage 'b': its steps");
  f.health.on_news(kLane, serves(1), at(200));
  BOOST_TEST(f.report(201).lanes[0].slow == "");
}

BOOST_AUTO_TEST_CASE(a_death_clears_it_at_once_and_names_what_has_died) {
  Ready f;
  f.health.on_news(kLane, away(2), at(100));
  const HealthReport dead = f.report(150);
  BOOST_TEST(!dead.ready);
  BOOST_TEST(dead.why == "lane 0: stage 'b' died; it is being repaired");
  BOOST_TEST((dead.lanes[0].state == LaneHealth::State::away));
  BOOST_TEST((dead.lanes[0].away_for == milliseconds(50)));
  f.health.on_news(kLane, serves(2), at(300));
  BOOST_TEST(!f.report(300).ready);  // what crossed before it does not count
  BOOST_TEST(f.report(300).why ==
             "lane 0: stage 'b' died; it is repaired, but no token has crossed its stages yet");
  f.health.on_crossing(kLane, PlanEpoch(2), at(310));
  BOOST_TEST(f.report(310).ready);
}

BOOST_AUTO_TEST_CASE(crossings_and_news_may_come_in_any_order) {
  Ready f;
  f.health.on_news(kLane, away(2), at(100));
  f.health.on_crossing(kLane, PlanEpoch(1), at(101));  // from before the death
  BOOST_TEST(!f.report(102).ready);
  f.health.on_crossing(kLane, PlanEpoch(2), at(200));  // ahead of the news
  BOOST_TEST(!f.report(200).ready);
  f.health.on_news(kLane, serves(2), at(201));
  BOOST_TEST(f.report(201).ready);
  f.health.on_crossing(kLane, PlanEpoch(1), at(202));
  f.health.on_crossing(kLane, PlanEpoch(2), at(150));
  BOOST_TEST((f.report(202).lanes[0].crossed_ago == milliseconds(2)));
}

BOOST_AUTO_TEST_CASE(a_stale_crossing_is_none) {
  const Ready f;
  BOOST_TEST(f.report(10'000).ready);
  const HealthReport stale = f.report(10'001);
  BOOST_TEST(!stale.ready);
  BOOST_TEST(stale.why == "lane 0: no token has crossed its stages for 10.0 s");
  BOOST_TEST((stale.lanes[0].state == LaneHealth::State::serving));
}

BOOST_AUTO_TEST_CASE(a_lane_that_cannot_be_reached_is_not_ready) {
  Ready f;
  f.health.on_lost(kLane);
  BOOST_TEST(f.report(1).why == "lane 0: its first rank cannot be reached");
  f.health.on_joined(kLane);
  BOOST_TEST(f.report(1).ready);
}

BOOST_AUTO_TEST_CASE(one_lane_is_enough_and_the_other_is_named) {
  Ready f;
  f.health.on_joined(kOther);
  f.health.on_news(kOther, away(2, "stage 'c' hangs"), at(0));
  const HealthReport report = f.report(10);
  BOOST_TEST(report.ready);
  BOOST_TEST(report.why.empty());
  BOOST_TEST(report.lanes[1].why == "stage 'c' hangs; it is being repaired");
  BOOST_TEST(!report.lanes[1].ready);
  f.health.on_news(kLane, away(3), at(20));
  BOOST_TEST(f.report(20).why ==
             "lane 0: stage 'b' died; it is being repaired; "
             "lane 1: stage 'c' hangs; it is being repaired");
}

BOOST_AUTO_TEST_CASE(of_many_lanes_the_first_few_are_named) {
  Health health;
  for (uint8_t lane = 0; lane < 6; ++lane) health.on_news(LaneId(lane), away(2, "x"), at(0));
  const std::string why = health.report(at(0)).why;
  BOOST_TEST(why.starts_with("lane 0: x; it is being repaired; lane 1: x; "));
  BOOST_TEST(why.ends_with("; lane 3: x; it is being repaired; and 2 more"));
}

BOOST_AUTO_TEST_CASE(a_coordinator_that_is_away_makes_nothing_unready) {
  Ready f;
  f.health.on_coordinator("it died");
  BOOST_TEST(f.report(1).ready);
  BOOST_TEST(f.report(1).coordinator_away == "it died");
  f.health.on_coordinator("");
  BOOST_TEST(f.report(1).coordinator_away == "");
}

/// A lane, its first rank with a canary, and who watches both from afar: everything that is said
/// takes its time, and crossings and news overtake each other.
struct World {
  struct Said {
    int64_t arrives;
    std::optional<LaneNews> news = {};
    PlanEpoch epoch = {};  // of a crossing, else
    TimePoint crossed = {};
  };
  std::mt19937_64 random;
  Canary canary;
  Health health;
  uint32_t epoch = 1;
  bool alive = true;
  std::optional<int64_t> under_way;  // when what runs will have crossed
  std::vector<Said> said;
  int64_t last_crossing = -1;  // of this epoch
  int64_t died = -1;
  int64_t told = -1;   // when the last death was heard of
  int64_t served = 0;  // since when the lane does
  int64_t num_canaries = 0;

  explicit World(uint64_t seed) : random(seed) {
    health.on_joined(kLane);
    canary.begin(at(0));
    said.push_back({soon(0), serves(epoch)});
  }
  int64_t upto(int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); }
  int64_t soon(int64_t now) { return now + 1 + upto(30); }
  void step(int64_t now, bool traffic, int64_t crossing_ms) {
    if (under_way && *under_way <= now) {
      under_way.reset();
      last_crossing = now;
      canary.on_crossing(at(now));
      said.push_back({soon(now), {}, PlanEpoch(epoch), at(now)});
    }
    if (alive && traffic && !under_way) under_way = now + crossing_ms;
    if (alive && canary.ask(!under_way, at(now))) {
      under_way = now + crossing_ms;
      ++num_canaries;
    }
    std::erase_if(said, [&](const Said& each) {
      if (each.arrives > now) return false;
      if (each.news)
        health.on_news(kLane, *each.news, at(now));
      else
        health.on_crossing(kLane, each.epoch, each.crossed);
      return true;
    });
  }
  void die(int64_t now) {
    alive = false;
    under_way.reset();
    last_crossing = -1;
    died = now;
    said.push_back({soon(now), away(++epoch)});
  }
  void come_back(int64_t now) {
    alive = true;
    served = now;
    canary.begin(at(now));
    // After the news of the death, as one coordinator says both.
    said.push_back({soon(std::max(now, died + 31)), serves(epoch)});
  }
};

BOOST_AUTO_TEST_CASE(in_random_histories_ready_is_true) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    World world(seed);
    bool traffic = false;
    int64_t repaired_at = 0;
    for (int64_t now = 0; now < 60'000; ++now) {
      if (world.upto(3000) == 0) traffic = !traffic;
      if (world.alive && world.upto(9000) == 0) {
        world.die(now);
        repaired_at = now + 100 + world.upto(2000);
      }
      if (!world.alive && now == repaired_at) world.come_back(now);
      world.step(now, traffic, 1 + world.upto(40));
      const HealthReport report = world.health.report(at(now));
      BOOST_TEST_CONTEXT("seed " << seed << " at " << now << " ms: " << report.why) {
        // A death is in the verdict as soon as it is heard of, within 31 ms here.
        if (!world.alive && now - world.died > 31) BOOST_REQUIRE(!report.ready);
        // What is ready has had a crossing since, and lately.
        if (report.ready && world.alive && now - world.served > 62)
          BOOST_REQUIRE(world.last_crossing >= 0 && now - world.last_crossing <= 10'000);
        // What works, with or without traffic, is ready soon, and stays so.
        if (world.alive && now - world.served > 250) BOOST_REQUIRE(report.ready);
        BOOST_REQUIRE_EQUAL(report.why.empty(), report.ready);
      }
    }
    BOOST_TEST(world.num_canaries < 60);
  }
}

BOOST_AUTO_TEST_CASE(a_lane_that_lets_nothing_through_is_not_ready_for_long) {
  World world(7);
  for (int64_t now = 0; now < 1000; ++now) world.step(now, false, 5);
  BOOST_TEST(world.health.report(at(1000)).ready);
  for (int64_t now = 1000; now < 30'000; ++now) world.step(now, true, 1 << 30);
  BOOST_TEST(!world.health.report(at(30'000)).ready);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::graph
