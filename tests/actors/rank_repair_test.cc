// Whole ranks with a tiny model are lost and replaced, as a coordinator would have it done: fence,
// load, connect, resume. Tokens are those of a calm run.
#include <boost/test/unit_test.hpp>

#include "tests/actors/rank_repairs.h"

namespace chainpump::actors {
BOOST_AUTO_TEST_CASE(a_lost_rank_is_replaced_and_nobody_notices) {
  const std::vector<TokenId> expected = calm(40);
  for (const size_t dead : {1u, 2u})
    for (int before = 0; before < 60; before += 7) {
      Repair chain(std::vector<size_t>(3, 1));
      chain.open();
      const Answer<Ok> one = chain.submit(0, 1, 40);
      const Answer<Ok> two = chain.submit(0, 2, 40);
      chain.tick_all(before);
      chain.lose(dead);
      chain.repair(dead);
      const Answer<Ok> three = chain.submit(0, 3, 40);
      chain.tick_until([&] { return one.come() && two.come() && three.come(); });
      for (const uint64_t id : {1u, 2u, 3u}) BOOST_TEST(chain.tokens_of[id] == expected);
    }
}

BOOST_AUTO_TEST_CASE(a_rank_is_armed_once_it_has_loaded_and_slows_and_falls_silent_as_it_was_told) {
  using Kind = transport::FaultOrder::Kind;
  Repair chain(std::vector<size_t>(3, 1));
  const auto arm = [&](size_t rank, const transport::FaultOrder& fault) {
    Answer<Ok> answer;
    chain.stages[rank]->arm({.fault = fault, .reply = answer.reply()});
    return answer;
  };
  BOOST_TEST((arm(1, {}).error().code == ErrorCode::invalid_argument));
  chain.open();
  BOOST_TEST(arm(1, {.kind = Kind::slowness, .factor = 3, .lasts = std::chrono::seconds(60)}).ok());
  const Answer<Ok> slow = chain.submit(0, 1, 10);
  chain.tick_until([&] { return slow.come(); });
  // A damaged frame breaks its link, which is repaired as any other.
  BOOST_TEST(arm(1, {.kind = Kind::damage, .count = 5}).ok());
  const Answer<Ok> links = chain.watch_links(2);
  const Answer<Ok> hit = chain.submit(0, 2, 40);
  chain.tick_until([&] { return links.come(); });
  BOOST_TEST((links.error().code == ErrorCode::disconnected));
  BOOST_TEST(links.error().message.find("header_crc") != std::string::npos, links.error().message);
  BOOST_TEST(!hit.come());
  chain.lose(1);
  chain.repair(1);
  chain.tick_until([&] { return hit.come(); });
  BOOST_TEST(chain.tokens_of[2] == calm(40));
}

BOOST_AUTO_TEST_CASE(again_and_again_each_in_turn) {
  const std::vector<TokenId> expected = calm(50);
  Repair chain(std::vector<size_t>(3, 1));
  chain.open();
  const Answer<Ok> one = chain.submit(0, 1, 50);
  const Answer<Ok> two = chain.submit(0, 2, 50);
  for (int i = 0; i < 12; ++i) {
    chain.tick_all(5);
    chain.lose(1 + static_cast<size_t>(i) % 2);
    chain.repair(1 + static_cast<size_t>(i) % 2);
  }
  chain.tick_until([&] { return one.come() && two.come(); });
  for (const uint64_t id : {1u, 2u}) BOOST_TEST(chain.tokens_of[id] == expected);
}

BOOST_AUTO_TEST_CASE(a_rank_of_two_lanes_takes_both_with_it_and_one_of_one_lane_only_its_own) {
  const std::vector<TokenId> expected = calm(40);
  for (const size_t dead : {1u, 2u, 4u}) {  // stage 1 of a lane, the last of both, stage 1
    Repair chain({2, 2, 1});
    chain.open();
    const Answer<Ok> one = chain.submit_on(0, 1, 40);
    const Answer<Ok> two = chain.submit_on(1, 2, 40);
    chain.tick_all(10);
    chain.lose(dead);
    chain.repair(dead);
    chain.tick_until([&] { return one.come() && two.come(); });
    for (const uint64_t id : {1u, 2u}) BOOST_TEST(chain.tokens_of[id] == expected);
  }
}

BOOST_AUTO_TEST_CASE(a_new_first_rank_serves_only_when_it_has_heard_of_the_others) {
  Repair chain(std::vector<size_t>(3, 1));
  chain.open();
  (void)chain.submit(0, 1, 60);
  chain.tick_all(12);
  const std::vector<TokenId> before = chain.tokens_of[1];
  chain.lose(0);
  ++chain.epoch;
  std::vector<Answer<rpc::StageHoldings>> fenced = {chain.fence(1, 0, 2), chain.fence(2, 0, 2)};
  BOOST_REQUIRE(chain.load(0).ok());
  BOOST_TEST((chain.attach(0, *chain.stages[0]).error().code == ErrorCode::invalid_argument));
  chain.tick_until([&] { return fenced[0].come() && fenced[1].come(); });
  BOOST_TEST((**fenced[0].held)->sequences.size() == 1u);
  std::vector<Answer<Ok>> opened;
  for (size_t i = 0; i < 3; ++i) opened.push_back(chain.connect_again(i, {graph::LaneId(0)}));
  chain.tick_until([&] {
    return std::all_of(opened.begin(), opened.end(), [](const auto& a) { return a.ok(); });
  });
  BOOST_TEST((chain.attach(0, *chain.stages[0]).error().code == ErrorCode::invalid_argument));
  BOOST_REQUIRE(chain.resume(0, 2, {***fenced[0].held, ***fenced[1].held}).ok());
  BOOST_REQUIRE(chain.attach(0, *chain.stages[0]).ok());
  const Answer<Ok> again = chain.submit(0, 1, 20);
  chain.tokens_of.clear();
  chain.tick_until([&] { return again.come(); });
  BOOST_TEST(chain.tokens_of[1] == calm(20));
  chain.tick_all(3);
  for (size_t i = 0; i < 3; ++i) {
    Answer<rpc::StageHoldings> held = chain.fence(i, 0, 3);
    chain.tick_until([&] { return held.come(); });
    BOOST_TEST((**held.held)->sequences.empty());  // the old incarnation's as well
  }
}

BOOST_AUTO_TEST_CASE(what_comes_from_an_older_epoch_is_refused) {
  Repair chain(std::vector<size_t>(3, 1));
  chain.open();
  const auto refused = [](const auto& answer) {
    return answer.come() && !answer.ok() && answer.error().code == ErrorCode::invalid_argument;
  };
  BOOST_TEST(refused(chain.fence(1, 0, 1)));  // the epoch it works in
  BOOST_TEST(refused(chain.fence(1, 5, 2)));  // no such lane
  BOOST_TEST(refused(chain.resume(0, 1, {})));
  BOOST_TEST(refused(chain.connect_again(1, {graph::LaneId(0)})));  // it has links
  std::vector<Answer<rpc::StageHoldings>> fenced;
  for (size_t i = 0; i < 3; ++i) fenced.push_back(chain.fence(i, 0, 5));
  chain.tick_until([&] {
    return std::all_of(fenced.begin(), fenced.end(), [](const auto& a) { return a.come(); });
  });
  for (const uint32_t old : {1u, 4u}) {
    chain.epoch = old;
    BOOST_TEST(refused(chain.connect_again(1, {graph::LaneId(0)})));
    BOOST_TEST(refused(chain.fence(1, 0, old)));
  }
  BOOST_TEST(refused(chain.fence(1, 0, 5)));
  chain.epoch = 5;
  // Opening, and then over before it was open: the answer says so.
  const Answer<Ok> opening = chain.connect_again(1, {graph::LaneId(0)});
  BOOST_TEST(!opening.come());
  const Answer<rpc::StageHoldings> newer = chain.fence(1, 0, 6);
  BOOST_REQUIRE(opening.come());
  BOOST_TEST((opening.error().code == ErrorCode::cancelled));
  BOOST_TEST(newer.ok());
  rpc::StageHoldings nonsense{
      .stage = 9, .sequences = {}, .held_positions = {}, .blocks = {}, .logged_positions = {}};
  BOOST_TEST(refused(chain.resume(0, 5, {nonsense})));
}

BOOST_AUTO_TEST_CASE(who_watches_links_is_told_and_others_are_not) {
  Repair chain(std::vector<size_t>(3, 1));
  chain.open();
  const Answer<Ok> of_links = chain.watch_links(2);
  const Answer<Ok> plain = chain.watch(2);
  chain.lose(1);
  chain.tick_until([&] { return of_links.come(); });
  BOOST_TEST((of_links.error().code == ErrorCode::disconnected));
  BOOST_TEST(!plain.come());
  BOOST_TEST(chain.watch_links(2).come());  // also who asks later
  chain.repair(1);
  BOOST_TEST(!chain.watch_links(2).come());
  const Answer<Ok> end = chain.submit(0, 1, 5);
  chain.tick_until([&] { return end.come(); });
  BOOST_TEST(end.ok());
}

// As a coordinator asks that was not there before.
BOOST_AUTO_TEST_CASE(a_load_again_says_what_the_lanes_are) {
  Repair chain({1, 1});
  const auto lane_of = [&](int32_t rank) {
    const Answer<rpc::LoadReport> answer = chain.load(rank);
    BOOST_TEST_REQUIRE(answer.ok());
    const rpc::LoadReport& report = (*answer.held)->value();
    BOOST_TEST(!report.numerics_id.empty());
    BOOST_TEST_REQUIRE(report.lanes.size() == 1u);
    return report.lanes[0];
  };
  const rpc::LaneState before = lane_of(0);
  BOOST_TEST((before.epoch == 1u && !before.linked && !before.at_work));
  chain.open();
  for (const int32_t rank : {0, 1}) {
    const rpc::LaneState now = lane_of(rank);
    BOOST_TEST((now.epoch == 1u && now.linked && now.at_work));
  }
  const auto first = chain.fence(0, 0, 4);
  const auto second = chain.fence(1, 0, 4);
  chain.tick_until([&] { return first.come() && second.come(); });
  for (const int32_t rank : {0, 1}) {
    const rpc::LaneState now = lane_of(rank);
    BOOST_TEST((now.epoch == 4u && now.linked && !now.at_work));
  }
  // Open again, but the first has not been resumed.
  chain.epoch = 4;
  const auto a = chain.connect_again(0, {graph::LaneId(0)});
  const auto b = chain.connect_again(1, {graph::LaneId(0)});
  chain.tick_until([&] { return a.ok() && b.ok(); });
  BOOST_TEST(!lane_of(0).at_work);
  BOOST_TEST(lane_of(1).at_work);
  BOOST_TEST(chain.resume(0, 4, {}).ok());
  BOOST_TEST(lane_of(0).at_work);
}

}  // namespace chainpump::actors
