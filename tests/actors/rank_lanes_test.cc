// Ranks in several lanes, by hand: a shared first, middle and last rank give every lane what it has
// alone, divide what they hold, and take all their lanes along when they go.
#include <algorithm>

#include "tests/actors/ranks.h"

namespace chainpump::actors {
namespace {

using namespace std::chrono_literals;

rpc::RankStats stats_of(RankStage& rank) {
  Answer<rpc::RankStats> answer;
  rank.stats({.reply = answer.reply()});
  BOOST_REQUIRE(answer.ok());
  return (*answer.held)->value();
}

std::vector<TokenId> tokens_alone() {
  Ranks alone(3);
  alone.open();
  const auto end = alone.submit(0, 1, 30);
  alone.tick_until([&] { return end.come(); });
  BOOST_TEST(end.ok());
  return alone.tokens;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_shared_rank_changes_no_token) {
  const std::vector<TokenId> expected = tokens_alone();
  BOOST_TEST(expected.size() == 30u);
  const std::vector<size_t> kReplicas[] = {{1, 2, 2}, {2, 1, 2}, {2, 2, 1}, {1, 2, 1},
                                           {2, 1, 1}, {4, 2, 1}, {1, 2, 4}};
  for (const std::vector<size_t>& replicas : kReplicas) {
    Ranks ranks(replicas);
    ranks.open();
    const auto lanes = static_cast<uint8_t>(num_lanes(ranks.plan));
    // As many on each as run at once: neighbours in every shared pool.
    std::vector<Answer<Ok>> running;
    for (uint8_t lane = 0; lane < lanes; ++lane)
      for (uint64_t i = 0; i < 2; ++i)
        running.push_back(ranks.submit_on(lane, 1 + lane * 2u + i, 30));
    ranks.tick_until([&] {
      return std::all_of(running.begin(), running.end(),
                         [](const auto& end) { return end.come(); });
    });
    for (const Answer<Ok>& end : running) BOOST_TEST(end.ok());
    for (uint64_t id = 1; id <= 2u * lanes; ++id) BOOST_TEST((ranks.tokens_of[id] == expected));
  }
}

BOOST_AUTO_TEST_CASE(a_rank_has_the_shares_of_its_lanes_and_reports_them) {
  Ranks ranks({2, 1, 2});
  ranks.open();
  std::vector<Answer<Ok>> running;
  for (uint8_t lane = 0; lane < 2; ++lane) running.push_back(ranks.submit_on(lane, 1u + lane, 20));
  const auto num_steps = [&](size_t rank) { return stats_of(*ranks.stages[rank]).stage.steps; };
  ranks.tick_until([&] {  // the last says only that they are to be forgotten
    return running[0].come() && running[1].come() && num_steps(1) == num_steps(0) + num_steps(3);
  });
  // Ranks: 0 and 3 the first, 1 the middle, 2 and 4 the last.
  const rpc::RankStats own = stats_of(*ranks.stages[3]);
  const rpc::RankStats shared = stats_of(*ranks.stages[1]);
  BOOST_TEST((own.stage.lanes == std::vector<uint8_t>{1}));
  BOOST_TEST((shared.stage.lanes == std::vector<uint8_t>{0, 1}));
  BOOST_REQUIRE_EQUAL(own.links.size(), 2u);
  BOOST_REQUIRE_EQUAL(shared.links.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    BOOST_TEST(shared.links[i].lane == i / 2);
    BOOST_TEST(shared.links[i].edge == i % 2);
    BOOST_TEST(shared.links[i].outgoing == (i % 2 == 1));
    BOOST_TEST(shared.links[i].frames > 0u);
  }
  const rpc::RankStats of_lane_0 = stats_of(*ranks.stages[0]);
  BOOST_TEST(shared.stage.steps == own.stage.steps + of_lane_0.stage.steps);
  BOOST_TEST(shared.stage.tokens == own.stage.tokens + of_lane_0.stage.tokens);
  for (const rpc::RankStats& each : {own, shared})
    BOOST_TEST(each.stage.wall_ns == each.stage.busy_ns + each.stage.transfer_ns +
                                         each.stage.bubble_input_ns + each.stage.bubble_credit_ns +
                                         each.stage.bubble_other_ns);
  // Weights once, KV for both.
  Ranks single(3);
  single.open();
  const rpc::RankStats alone = stats_of(*single.stages[1]);
  BOOST_TEST(shared.stage.weight_bytes_held == alone.stage.weight_bytes_held);
  BOOST_TEST(shared.stage.kv_bytes == 2 * alone.stage.kv_bytes);
}

// A lane whose blocks are all in use takes nothing from its neighbour on the same ranks.
BOOST_AUTO_TEST_CASE(a_full_lane_leaves_its_neighbour_its_share) {
  Ranks ranks({1, 1, 2});
  ranks.open();
  // Two of 10 + 50 tokens take all four blocks of lane 0; the third waits for their end.
  const auto first = ranks.submit_on(0, 1, 50), second = ranks.submit_on(0, 2, 50);
  const auto waiting = ranks.submit_on(0, 3, 50);
  ranks.tick_until([&] {
    return ranks.tokens_of[1].size() >= 30 &&
           stats_of(*ranks.stages[0]).lanes[0].num_free_kv_blocks == 0;
  });
  const auto neighbour = ranks.submit_on(1, 4, 10);
  const rpc::RankStats now = stats_of(*ranks.stages[0]);
  BOOST_REQUIRE_EQUAL(now.lanes.size(), 2u);
  const auto check = [](const rpc::LaneReport& lane, int run, int wait, int free) {
    BOOST_TEST(lane.num_running == run);
    BOOST_TEST(lane.num_waiting == wait);
    BOOST_TEST(lane.num_free_kv_blocks == free);
    BOOST_TEST(lane.num_kv_blocks == 4);
  };
  check(now.lanes[0], 2, 1, 0);
  check(now.lanes[1], 0, 1, 4);  // until its first step
  BOOST_TEST(stats_of(*ranks.stages[1]).lanes.empty());
  ranks.tick_until([&] { return neighbour.come(); });
  BOOST_TEST(neighbour.ok());
  BOOST_TEST(!first.come());
  BOOST_TEST(ranks.tokens_of[3].empty());
  ranks.tick_until([&] { return first.come() && second.come() && waiting.come(); });
  BOOST_TEST((first.ok() && second.ok() && waiting.ok()));
  BOOST_TEST((ranks.tokens_of[3] == ranks.tokens_of[1]));
}

BOOST_AUTO_TEST_CASE(each_lane_has_its_own_door) {
  Ranks ranks({1, 2});
  ranks.open();
  const auto refused = [](const auto& answer) {
    return answer.come() && !answer.ok() && answer.error().code == ErrorCode::invalid_argument;
  };
  BOOST_TEST(refused(ranks.attach(2, *ranks.stages[0])));  // there is no such lane
  BOOST_TEST(refused(ranks.attach(1, *ranks.stages[2])));  // its last stage
  const auto a = ranks.submit_on(0, 1, 50), b = ranks.submit_on(1, 2, 50);
  ranks.tick_until([&] { return ranks.tokens_of[1].size() > 2 && ranks.tokens_of[2].size() > 2; });
  // Another lane's request is nobody's.
  CancelCommand command;
  command.client = Ranks::client_of(0);
  command.request_ids = {2};
  BOOST_TEST(ranks.tell(0, &RankStage::cancel, std::move(command)).ok());
  BOOST_TEST(!b.come());
  ranks.stages[0]->detach({.client = Ranks::client_of(1)});
  ranks.tick_until([&] { return a.come(); });
  BOOST_TEST(a.ok());
  BOOST_TEST(!b.come());  // its client has gone
  BOOST_TEST(ranks.tokens_of[2].size() < 50u);
  BOOST_TEST(refused(ranks.submit_on(1, 3, 5)));
  ranks.attach(1, *ranks.stages[0]);
  const auto again = ranks.submit_on(1, 4, 50);
  ranks.tick_until([&] { return again.come(); });
  BOOST_TEST((ranks.tokens_of[4] == ranks.tokens_of[1]));
}

BOOST_AUTO_TEST_CASE(what_breaks_in_one_lane_ends_all_lanes_of_the_rank) {
  Ranks ranks({1, 2, 1});
  ranks.open();
  const auto first = ranks.watch_links(0);
  const auto last = ranks.watch(2);
  const auto middle = ranks.watch_links(1);
  const auto bystander = ranks.submit_on(1, 2, 50);
  ranks.tick_until([&] { return ranks.tokens_of[2].size() > 2; });
  const auto doomed = ranks.submit(0, 1, 1, ranks.folder / "no folder" / "full.npy");
  ranks.tick_until([&] { return last.come(); });
  BOOST_TEST(last.error().message.find("lane 0: ") != std::string::npos, last.error().message);
  BOOST_TEST(last.error().message.find("full.npy") != std::string::npos, last.error().message);
  BOOST_TEST(!first.come());
  BOOST_TEST(!ranks.stages[2]->ticking());
  BOOST_TEST(ranks.shutdown(2).ok());
  ranks.stages[2].reset();  // dead: all that it served notice
  ranks.stages.erase(ranks.stages.begin() + 2);
  ranks.tick_until([&] { return first.come() && middle.come(); });
  BOOST_TEST(!doomed.come());  // they wait for a repair
  BOOST_TEST(!bystander.come());
}

BOOST_AUTO_TEST_CASE(a_shutdown_closes_the_links_of_all_lanes) {
  Ranks ranks({1, 2, 1});
  ranks.open();
  const auto a = ranks.submit_on(0, 1, 50), b = ranks.submit_on(1, 2, 50);
  ranks.tick_until([&] { return ranks.tokens.size() >= 4; });
  const TimePoint began = steady_clock().now();
  std::vector<Answer<Ok>> left;
  for (int32_t rank = 0; rank < 4; ++rank) left.push_back(ranks.shutdown(rank));
  BOOST_TEST((a.error().code == ErrorCode::disconnected));
  BOOST_TEST((b.error().code == ErrorCode::disconnected));
  ranks.tick_until([&] {
    return std::all_of(left.begin(), left.end(), [](const auto& answer) { return answer.ok(); });
  });
  BOOST_TEST(to_ms(steady_clock().now() - began) < 500.0);
  for (const auto& stage : ranks.stages) BOOST_TEST(stage->gone());
}

BOOST_AUTO_TEST_CASE(links_that_are_not_the_plan_s_are_refused) {
  Ranks ranks({1, 2});
  BOOST_REQUIRE(ranks.load(0).ok());
  const auto refused = [&](std::vector<uint32_t> out, std::vector<uint32_t> in) {
    Answer<Ok> answer;
    ConnectCommand command{.params = {}, .reply = answer.reply()};
    for (const uint32_t edge : out) command.params.links.push_back({.edge = edge, .secret = 7});
    for (const uint32_t edge : in) command.params.accept.push_back({.edge = edge, .secret = 7});
    ranks.stages[0]->connect(std::move(command));
    return answer.come() && !answer.ok() && answer.error().code == ErrorCode::invalid_argument;
  };
  // Lane 0 has links 0 and 1, lane 1 has 2 and 3.
  BOOST_TEST(refused({}, {}));
  BOOST_TEST(refused({0}, {}));
  BOOST_TEST(refused({0}, {3}));
  BOOST_TEST(refused({0, 2}, {1}));
  BOOST_TEST(refused({0, 1}, {1, 3}));
  BOOST_TEST(refused({0, 0}, {1, 3}));
  BOOST_TEST(refused({0, 2, 4}, {1, 3, 5}));
  BOOST_TEST(!ranks.connect(0).come());
}

}  // namespace chainpump::actors
