// Lanes of one runtime whose first ranks come and go: who is asked, who waits, and, with threads of
// all kinds at once, that every request ends once with its own tokens.
#include <atomic>

#include "tests/actors/lanes_world.h"
#include "tests/fakes/random.h"

namespace chainpump::actors {

using namespace std::chrono_literals;

BOOST_AUTO_TEST_CASE(a_lane_that_is_away_gets_nothing_while_another_serves) {
  std::vector<Heard> heard(12);
  LanesWorld w(2);
  const auto a = w.open(0);
  const auto b = w.open(1);
  for (size_t i = 0; i < 4; ++i) w.submit(heard[i]);
  BOOST_TEST(a->requests().size() == 2u);
  BOOST_TEST(b->requests().size() == 2u);
  a->watch_answer(gone());
  for (size_t i = 4; i < 8; ++i) w.submit(heard[i]);
  BOOST_TEST(b->requests().size() == 6u);
  // None serves: they wait, in both.
  b->watch_answer(gone());
  for (size_t i = 8; i < 12; ++i) w.submit(heard[i]);
  const auto c = w.open(1);
  BOOST_TEST(c->requests().size() == 8u);
  const auto d = w.open(0);
  BOOST_TEST(d->requests().size() == 4u);
  for (const auto& rank : {c, d})
    for (const auto& request : rank->requests()) {
      say_tokens(*rank, request, 0, 0, 1, true);
      say_end(*rank, request, 0);
    }
  for (Heard& each : heard) {
    BOOST_TEST(each.wait_end().ok());
    BOOST_TEST(each.tokens == std::vector<TokenId>{13});
  }
}

BOOST_AUTO_TEST_CASE(a_connection_that_was_lost_while_all_ranks_are_at_work_is_made_again) {
  std::atomic<int> num_asked{0};
  Heard heard;
  LanesWorld w(2, kPatience, [&](graph::LaneId lane) {
    BOOST_TEST(lane.value == 0);
    ++num_asked;
  });
  const auto first = w.open(0);
  w.open(1);
  w.lanes->set_paused(graph::LaneId(0), true);  // it is being repaired: that makes another
  first->watch_answer(gone());
  std::this_thread::sleep_for(1200ms);
  BOOST_TEST(num_asked == 0);
  w.lanes->set_paused(graph::LaneId(0), false);
  const TimePoint deadline = steady_clock().now() + kPatience;
  while (num_asked < 2 && steady_clock().now() < deadline) std::this_thread::sleep_for(10ms);
  BOOST_TEST(num_asked >= 2);  // the first did not help
  const auto again = std::make_shared<FakeRankPort>();
  w.lanes->reopen(graph::LaneId(0), again, PlanEpoch(1));
  const int num_then = num_asked;
  std::this_thread::sleep_for(1200ms);
  BOOST_TEST(num_asked <= num_then + 1);  // that was under way
}

BOOST_AUTO_TEST_CASE(what_waits_is_cancelled_expires_and_fails_without_any_rank) {
  for (const size_t num_lanes : {1, 2}) {
    Heard cancelled, late, failed;
    LanesWorld w(num_lanes);
    const RequestId id = w.submit(cancelled);
    w.submit(late, 30ms);
    w.submit(failed);
    w.lanes->cancel(id);
    BOOST_TEST((cancelled.wait_end().error().code == ErrorCode::cancelled));
    BOOST_TEST((late.wait_end().error().code == ErrorCode::deadline_exceeded));
    w.outcome->set_failed(make_error(ErrorCode::internal, "too many deaths"));
    BOOST_TEST(failed.wait_end().error().message == "too many deaths");
    BOOST_TEST((w.outcome->lanes() == nullptr));
  }
}

BOOST_AUTO_TEST_CASE(what_waits_ends_with_the_runtime) {
  Heard heard, after;
  LanesWorld w(1);
  w.submit(heard);
  w.outcome->drop_ports();
  BOOST_REQUIRE_EQUAL(heard.ends.size(), 1u);  // before it returns
  BOOST_TEST((heard.ends[0].error().code == ErrorCode::cancelled));
  // Who comes too late is let go at once.
  const auto late = *Lanes::create(plan_of(1), w.outcome);
  w.outcome->set_serving(late, {}, "n");
  BOOST_TEST((w.outcome->lanes() == nullptr));
  late->submit(RequestId(1), asked(3), kPatience, {after.callbacks()});
  BOOST_TEST(after.ends.size() == 1u);
}

BOOST_AUTO_TEST_CASE(whatever_dies_and_whoever_asks_meanwhile_nothing_is_lost_or_told_twice) {
  for (const size_t num_lanes : {1, 3}) {
    fakes::Random random(num_lanes);
    std::vector<Heard> heard(240);
    LanesWorld w(num_lanes, 1ms);
    std::vector<std::shared_ptr<LiveRank>> ranks(num_lanes);
    const auto replace = [&](size_t lane, bool told_first) {
      const auto before = ranks[lane];
      if (before && !told_first) before->kill();
      ranks[lane] = std::make_shared<LiveRank>();
      w.lanes->reopen(graph::LaneId(static_cast<uint8_t>(lane)), ranks[lane], PlanEpoch(++w.epoch));
      if (before) before->kill();
    };
    for (size_t lane = 0; lane < num_lanes; ++lane) replace(lane, false);
    const TimePoint deadline = steady_clock().now() + kPatience;
    std::atomic<size_t> num_asked{0};
    std::atomic<size_t> num_ended{0};
    std::thread client([&] {
      for (size_t i = 0; i < heard.size(); i += 2) {
        const RequestId id(i + 1);
        std::vector<SequenceCallbacks> callbacks = {heard[i].callbacks(), heard[i + 1].callbacks()};
        for (SequenceCallbacks& each : callbacks)
          each.on_end = [&num_ended, on_end = std::move(each.on_end)](Result<Ok> how) {
            on_end(std::move(how));
            ++num_ended;
          };
        w.lanes->submit(id, asked(3, 2), kPatience, std::move(callbacks));
        num_asked = i + 2;
        if (i % 10 == 0) w.lanes->cancel(id);
        while (num_asked - num_ended > 30 && steady_clock().now() < deadline)
          std::this_thread::yield();
      }
    });
    int num_deaths = 0;
    while (num_ended < heard.size() && steady_clock().now() < deadline) {
      replace(static_cast<size_t>(random.pick(static_cast<int>(num_lanes))), random.chance(2));
      ++num_deaths;
      const auto paused = static_cast<uint8_t>(random.pick(static_cast<int>(num_lanes)));
      w.lanes->set_paused(graph::LaneId(paused), random.chance(2));
      const TimePoint until = steady_clock().now() + random.up_to(2ms);
      while (steady_clock().now() < until) std::this_thread::yield();
    }
    client.join();
    BOOST_TEST_MESSAGE(num_lanes << " lanes: " << num_deaths << " deaths");
    std::vector<TokenId> all;  // by the law
    for (int32_t i = 0; i < kTokens; ++i) all.push_back(13 + i);
    for (size_t i = 0; i < heard.size(); ++i) {
      BOOST_TEST_CONTEXT("sequence " << i) {
        const Result<Ok> end = heard[i].wait_end();
        const std::lock_guard lock(heard[i].mutex);
        BOOST_TEST(heard[i].ends.size() == 1u);
        BOOST_TEST((end.ok() || (end.error().code == ErrorCode::cancelled && i % 10 < 2)));
        std::vector<TokenId> expected = all;
        if (!end.ok()) expected.resize(std::min(all.size(), heard[i].tokens.size()));
        BOOST_TEST(heard[i].tokens == expected);
      }
    }
  }
}

}  // namespace chainpump::actors
