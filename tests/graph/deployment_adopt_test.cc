// A deployment under its second coordinator, told events by hand.
#include "tests/graph/deployment_fixture.h"

namespace chainpump::graph {
namespace {

struct Adopting : DeploymentFixture {
  Adopting() {
    plan.stages[1].standbys = 1;
    plan.failover_restarts = 2;
    begin();
    bring_up();
  }
  /// Another coordinator, with what this one has written.
  std::vector<D::Action> take_over(const std::vector<ProcessId>& living) {
    const DeploymentRecord record = deployment->record();
    BOOST_TEST_REQUIRE(check(record, plan).ok());
    deployment.emplace(plan, DeploymentLimits{});
    return deployment->adopt(record, living, now);
  }
  std::vector<D::Action> says(ProcessId process, const LaneSeen& seen,
                              const std::string& numerics_id = "same") {
    const auto load = step(D::Greeted{process});
    BOOST_TEST((whose(Kind::load, load) == Processes{process.value}));
    return step(D::Loaded{process, numerics_id, {{kLane0, seen}}});
  }
  static LaneSeen at_work(uint32_t epoch) { return {PlanEpoch(epoch), true, true}; }
  const LaneSeen new_one{PlanEpoch(1), false, false};
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(deployment_adopt, Adopting)

BOOST_AUTO_TEST_CASE(where_nothing_is_wrong_nobody_is_asked_for_anything) {
  const auto first = take_over({a, b, c});
  BOOST_TEST(first.size() == 1u);
  BOOST_TEST(only(Kind::serve, first) != nullptr);
  BOOST_TEST(deployment->numerics_id() == "same");
  BOOST_TEST(says(c, new_one).empty());  // the standby
  BOOST_TEST(says(b, at_work(1)).empty());
  // The next one, too, may die before it has heard of all.
  take_over({a, b, c});
  BOOST_TEST(says(b, at_work(1)).empty());
  const auto last = says(a, at_work(1));
  BOOST_TEST(last.size() == 1u);
  const D::Action* const serving = only(Kind::lane_serving, last);
  BOOST_TEST_REQUIRE(serving != nullptr);
  BOOST_TEST((serving->first_since == PlanEpoch(1)));
  BOOST_TEST((deployment->epoch(kLane0) == PlanEpoch(1)));
  says(c, new_one);
  BOOST_TEST(!deployment->next_deadline().has_value());
  // And it repairs as the first one would have.
  const auto actions = step(D::Exited{b, "killed"});
  BOOST_TEST((whose(Kind::fence, actions) == Processes{0}));
  BOOST_TEST((repair(actions).epoch == PlanEpoch(2)));
  BOOST_TEST((deployment->process_in(RankId(1)) == c));
}

BOOST_AUTO_TEST_CASE(who_died_meanwhile_is_an_end_like_any_other) {
  auto actions = take_over({a, c});
  BOOST_TEST((whose(Kind::spawn, actions) == Processes{1}));
  BOOST_TEST((deployment->process_in(RankId(1)) == c));
  BOOST_TEST(says(c, new_one).empty());
  actions = says(a, {PlanEpoch(1), true, false});  // its links broke with b
  BOOST_TEST((whose(Kind::fence, actions) == Processes{0}));
  BOOST_TEST((repair(actions).first_since == PlanEpoch(1)));

  // The window is not forgotten, nor who has the place.
  take_over({a, b, c});
  BOOST_TEST((deployment->process_in(RankId(1)) == c));
  step(D::Exited{b, "killed"});
  BOOST_TEST(failure(take_over({b, c})).find("3rd end of a rank") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(all_that_died_with_their_node_agent_are_one_end) {
  const auto actions = take_over({});
  BOOST_TEST((whose(Kind::spawn, actions) == Processes{0, 1, 2}));
  BOOST_TEST_REQUIRE(only(Kind::repairing, actions) != nullptr);
  BOOST_TEST(only(Kind::repairing, actions)->error.message ==
             "stage 'front' and 2 more ranks died while there was no coordinator");
  BOOST_TEST(deployment->record().ends.size() == 1u);
  load(a);
  BOOST_TEST((whose(Kind::connect, load(b)) == Processes{0, 1}));
}

BOOST_AUTO_TEST_CASE(a_new_first_rank_is_told_to_the_clients) {
  take_over({b, c});
  says(b, {PlanEpoch(1), true, false});
  const auto actions = load(a);
  // The repair is not at its end: the next one begins anew, and does not forget that.
  BOOST_TEST((whose(Kind::fence, actions).empty()));
  auto next = take_over({a, b, c});
  BOOST_TEST((deployment->epoch(kLane0) == PlanEpoch(3)));
  BOOST_TEST(only(Kind::serve, next) != nullptr);
  next = says(a, {PlanEpoch(2), true, false});
  for (const D::Action& more : says(b, {PlanEpoch(2), true, false})) next.push_back(more);
  BOOST_TEST((whose(Kind::fence, next) == Processes{0, 1}));
  BOOST_TEST((repair(next).first_since == PlanEpoch(3)));
}

BOOST_AUTO_TEST_CASE(a_link_that_broke_meanwhile_is_repaired) {
  take_over({a, b, c});
  says(a, at_work(1));
  const auto actions = says(b, {PlanEpoch(1), true, false});
  BOOST_TEST((whose(Kind::fence, actions) == Processes{0, 1}));
  BOOST_TEST((repair(actions).epoch == PlanEpoch(2)));
  BOOST_TEST(deployment->record().ends.size() == 1u);
}

BOOST_AUTO_TEST_CASE(one_that_does_not_say_what_it_is_is_killed) {
  take_over({a, b, c});
  says(a, at_work(1));
  says(c, new_one);
  const auto actions = wait();
  BOOST_TEST((whose(Kind::kill, actions) == Processes{1}));
  const auto replaced = step(D::Exited{b, "killed"});
  BOOST_TEST((repair(replaced).epoch == PlanEpoch(2)));
}

BOOST_AUTO_TEST_CASE(one_that_computes_otherwise_is_killed) {
  take_over({a, b, c});
  BOOST_TEST((whose(Kind::kill, says(b, at_work(1), "another")) == Processes{1}));
}

BOOST_AUTO_TEST_CASE(what_had_not_begun_to_serve_is_brought_up) {
  begin();
  load(a);
  load(b);
  auto actions = take_over({a, b});  // the standby was not started
  BOOST_TEST(only(Kind::serve, actions) == nullptr);
  BOOST_TEST((whose(Kind::spawn, actions) == Processes{2}));
  says(a, new_one);
  actions = says(b, {PlanEpoch(1), true, false});  // was told to connect
  BOOST_TEST((whose(Kind::fence, actions) == Processes{1}));
  actions = step(D::Fenced{b, kLane0, PlanEpoch(2)});
  BOOST_TEST((whose(Kind::connect, actions) == Processes{0, 1}));
  step(D::Connected{a, kLane0, PlanEpoch(2)});
  step(D::Connected{b, kLane0, PlanEpoch(2)});
  actions = step(D::Resumed{kLane0, PlanEpoch(2)});
  BOOST_TEST(only(Kind::serve, actions) != nullptr);
  BOOST_TEST(only(Kind::lane_serving, actions) != nullptr);
  BOOST_TEST(deployment->record().ends.empty());
}

BOOST_AUTO_TEST_CASE(a_coordinator_that_cannot_go_on_says_why) {
  const auto actions = step(D::CannotGoOn{{ErrorCode::no_room, "state.db: the disk is full"}});
  BOOST_TEST(failure(actions) == "state.db: the disk is full");
  BOOST_TEST((whose(Kind::shutdown, actions) == Processes{0, 1, 2}));
}

BOOST_AUTO_TEST_CASE(records_of_others_are_refused) {
  const DeploymentRecord good = deployment->record();
  BOOST_TEST(check(good, plan).ok());
  const auto refused = [&](auto change) {
    DeploymentRecord record = good;
    change(record);
    const Status status = check(record, plan);
    return !status.ok() && status.error().code == ErrorCode::bad_file;
  };
  BOOST_TEST(refused([](auto& record) { record.lanes.pop_back(); }));
  BOOST_TEST(refused([](auto& record) { record.processes.push_back({}); }));
  BOOST_TEST(refused([](auto& record) { record.epoch = PlanEpoch(0); }));
  BOOST_TEST(refused([](auto& record) { record.lanes[0].epoch = PlanEpoch(2); }));
  BOOST_TEST(refused([](auto& record) { record.lanes[0].epoch = PlanEpoch(0); }));
  BOOST_TEST(refused([](auto& record) { record.lanes[0].first_since = PlanEpoch(2); }));
  BOOST_TEST(refused([](auto& record) { record.processes[0].is_standby = true; }));
  BOOST_TEST(refused([](auto& record) { record.processes[2].is_standby = false; }));
  BOOST_TEST(refused([](auto& record) { record.processes[2].is_spare = true; }));
  BOOST_TEST(refused([](auto& record) { record.processes[3].is_spare = false; }));
  BOOST_TEST(refused([](auto& record) { record.processes[0].place = RankId(1); }));
  BOOST_TEST(refused([](auto& record) { record.processes[3].place = RankId(2); }));
  BOOST_TEST(refused([](auto& record) { record.ends = {{Duration(2)}, {Duration(1)}}; }));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
