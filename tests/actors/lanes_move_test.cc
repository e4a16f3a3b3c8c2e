// What waits in a lane that does not serve goes on in another, with what was told of it.
#include "tests/actors/lanes_world.h"

namespace chainpump::actors {
namespace {

using namespace std::chrono_literals;

std::vector<TokenId> all_tokens() {
  std::vector<TokenId> all;  // by the law
  for (int32_t i = 0; i < kTokens; ++i) all.push_back(13 + i);
  return all;
}

void check_whole(std::vector<Heard>& heard) {
  for (Heard& each : heard) {
    BOOST_TEST(each.wait_end().ok());
    const std::lock_guard lock(each.mutex);
    BOOST_TEST(each.ends.size() == 1u);
    BOOST_TEST(each.tokens == all_tokens());
  }
}

template <typename Condition>
void wait_until(Condition condition) {
  const TimePoint deadline = steady_clock().now() + kPatience;
  while (!condition()) {
    BOOST_REQUIRE(steady_clock().now() < deadline);
    std::this_thread::yield();
  }
}

struct Six {
  std::vector<Heard> heard{6};  // until nobody tells them anything any more
};

/// Six sequences between them; nothing is computed yet.
struct TwoLanes : Six, LanesWorld {
  TwoLanes() : LanesWorld(2, 10ms) {
    for (uint8_t lane = 0; lane < 2; ++lane) {
      ranks[lane]->set_stalled(true);
      lanes->reopen(graph::LaneId(lane), ranks[lane], PlanEpoch(++epoch));
    }
    for (Heard& each : heard) submit(each);
    wait_until([&] { return ranks[0]->num_running() + ranks[1]->num_running() == heard.size(); });
    BOOST_REQUIRE(ranks[0]->num_running() > 0 && ranks[1]->num_running() > 0);
  }
  ~TwoLanes() {
    for (const auto& rank : ranks) rank->kill();
  }
  std::shared_ptr<LiveRank> ranks[2] = {std::make_shared<LiveRank>(), std::make_shared<LiveRank>()};
};

}  // namespace

BOOST_AUTO_TEST_SUITE(lanes_move)

/// Some other of its ranks is replaced: its first has them, and lets go of them.
BOOST_AUTO_TEST_CASE(out_of_a_lane_that_is_paused) {
  TwoLanes w;
  w.ranks[1]->set_stalled(false);
  w.lanes->set_paused(graph::LaneId(0), true);
  check_whole(w.heard);
  wait_until([&] { return w.ranks[0]->num_running() == 0; });
}

BOOST_AUTO_TEST_CASE(out_of_a_lane_whose_first_rank_is_gone) {
  TwoLanes w;
  w.ranks[1]->set_stalled(false);
  w.ranks[0]->kill();
  check_whole(w.heard);
}

/// When no other serves they wait; and go where one serves first.
BOOST_AUTO_TEST_CASE(as_soon_as_another_serves) {
  TwoLanes w;
  w.lanes->set_paused(graph::LaneId(1), true);
  w.lanes->set_paused(graph::LaneId(0), true);
  w.ranks[1]->set_stalled(false);
  w.lanes->set_paused(graph::LaneId(1), false);
  check_whole(w.heard);
}

BOOST_AUTO_TEST_CASE(a_lane_that_is_paused_gets_nothing_new_while_another_serves) {
  std::vector<Heard> late(6);
  TwoLanes w;
  const size_t before = w.ranks[0]->num_taken();
  w.ranks[1]->set_stalled(false);
  w.lanes->set_paused(graph::LaneId(0), true);
  for (Heard& each : late) w.submit(each);
  check_whole(late);
  check_whole(w.heard);
  BOOST_TEST(w.ranks[0]->num_taken() == before);
}

/// What is given up and what is not, and as what it goes on.
BOOST_AUTO_TEST_CASE(from_lane_to_lane) {
  LaneWorld a, b;
  const auto from = a.open();
  const auto to = b.open();
  Told running, file, over, cancelled;
  const auto ask = [&](SequenceRequest what, Told& told) {
    const RequestId id(++a.num_requests);
    a.lane->submit(id, std::move(what), LaneWorld::kTimeout, {told.callbacks()});
    return id;
  };
  ask(asked(3), running);
  ask(to_score(8, 2, "scores.npy"), file);
  ask(asked(3), over);
  const RequestId last = ask(asked(3), cancelled);
  const auto given = from->requests();
  BOOST_REQUIRE_EQUAL(given.size(), 4u);
  say_tokens(*from, given[0], 0, 0, 2);
  say_tokens(*from, given[2], 0, 0, 1, true);
  a.lane->cancel(last);
  a.lane->in_turn([&] {
    std::function<void()> then;
    const auto left = a.lane->give_up(then);
    BOOST_REQUIRE_EQUAL(left.size(), 1u);
    b.lane->go_on(left[0])();
    then();
  });
  BOOST_TEST(from->cancelled == std::vector<uint64_t>{given[0].request_id});
  const auto again = to->requests();
  BOOST_REQUIRE_EQUAL(again.size(), 1u);
  BOOST_TEST((again[0].generated == std::vector<int32_t>{13, 14}));
  BOOST_TEST(again[0].readmitted);
  BOOST_TEST(again[0].identity == given[0].identity);
  say_tokens(*from, given[0], 0, 2, 1);  // too late
  BOOST_TEST(running.text == "13 14 ");
  say_tokens(*to, again[0], 0, 0, 1, true);
  say_end(*to, again[0], 0);
  BOOST_TEST(running.text == "13 14 15 ok");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::actors
