// Start and stop; what happens when a rank has gone stands in deployment_repair_test.cc.
#include "tests/graph/deployment_fixture.h"

namespace chainpump::graph {

BOOST_FIXTURE_TEST_SUITE(deployment, DeploymentFixture)

BOOST_AUTO_TEST_CASE(connects_only_when_all_have_loaded) {
  BOOST_TEST(only(Kind::load, step(D::Greeted{a})) != nullptr);
  BOOST_TEST(step(D::Loaded{a, "same"}).empty());
  step(D::Greeted{b});
  BOOST_TEST((whose(Kind::connect, step(D::Loaded{b, "same"})) == Processes{0, 1}));
  BOOST_TEST(step(D::Connected{b, kLane0, PlanEpoch(1)}).empty());
  BOOST_TEST(step(D::Connected{b, kLane0, PlanEpoch(1)}).empty());
  BOOST_TEST(only(Kind::serve, step(D::Connected{a, kLane0, PlanEpoch(1)})) != nullptr);
  BOOST_TEST((this->deployment->phase() == D::Phase::serving));
  BOOST_TEST(!this->deployment->next_deadline().has_value());
}

BOOST_AUTO_TEST_CASE(refuses_a_lane_that_computes_in_two_ways) {
  for (const ProcessId p : {a, b}) step(D::Greeted{p});
  step(D::Loaded{a, "avx512"});
  const std::string why = failure(step(D::Loaded{b, "avx2"}));
  BOOST_TEST(why ==
             "stage 'front' computes as avx512, stage 'back' as avx2: a deployment needs one way");
}

BOOST_AUTO_TEST_CASE(a_failure_at_the_start_ends_everything_once_and_names_the_stage) {
  struct Case {
    D::Event event;
    const char* why;
  };
  const std::vector<Case> table = {
      {D::Exited{b, "killed by signal 9"}, "stage 'back' died: killed by signal 9"},
      {D::Failed{b, {ErrorCode::bad_file, "no tensor"}}, "stage 'back': no tensor"},
      {D::CallFailed{b, kLane0, PlanEpoch(1), {ErrorCode::internal, "no link"}},
       "stage 'back': no link"}};
  for (const Case& each : table) {
    begin();
    for (const ProcessId p : {a, b}) load(p);
    const auto actions = step(each.event);
    BOOST_TEST(failure(actions) == each.why);
    BOOST_TEST(failure(step(D::Failed{a, {ErrorCode::internal, "link broke"}})) == "");
    const bool gone = std::holds_alternative<D::Exited>(each.event);
    BOOST_TEST((whose(Kind::shutdown, actions) == (gone ? Processes{0} : Processes{0, 1})));
    if (!gone) step(D::Exited{b, "exit 0"});
    BOOST_TEST(only(Kind::stopped, step(D::Exited{a, "exit 0"})) != nullptr);
  }
}

BOOST_AUTO_TEST_CASE(news_of_a_lost_connection_waits_for_that_of_the_death) {
  step(D::Greeted{a});
  BOOST_TEST(step(D::Unreachable{a, {ErrorCode::disconnected, "closed"}}).empty());
  BOOST_TEST(failure(step(D::Exited{a, "exit 7"})) == "stage 'front' died: exit 7");
  begin();
  step(D::Unreachable{a, {ErrorCode::disconnected, "closed"}});
  BOOST_TEST(failure(wait()) == "stage 'front': closed");
}

BOOST_AUTO_TEST_CASE(a_rank_that_does_not_leave_is_killed) {
  bring_up();
  BOOST_TEST(step(D::StopRequested{}).size() == 2u);
  step(D::Exited{a, "exit 0"});
  const auto actions = wait();
  BOOST_TEST_REQUIRE(actions.size() == 1u);
  BOOST_TEST((only(Kind::kill, actions)->process == b));
  BOOST_TEST(only(Kind::stopped, step(D::Exited{b, "killed"})) != nullptr);
}

BOOST_AUTO_TEST_CASE(every_wait_has_a_deadline_and_progress_moves_it) {
  step(D::Greeted{a});
  step(D::Greeted{b});
  now = now + seconds(20);
  step(D::LoadProgressed{a});
  step(D::LoadProgressed{b});
  now = now + seconds(20);
  BOOST_TEST(this->deployment->on_time(now).empty());
  step(D::LoadProgressed{a});
  const auto actions = wait();
  BOOST_TEST(failure(actions) == "stage 'back' did not load its weights in time");
  BOOST_TEST((only(Kind::fail, actions)->error.code == ErrorCode::deadline_exceeded));
  begin();
  BOOST_TEST(failure(wait()) == "stage 'front' did not say hello in time");
  begin();
  for (const ProcessId p : {a, b}) load(p);
  step(D::Connected{a, kLane0, PlanEpoch(1)});
  BOOST_TEST(failure(wait()) == "stage 'back' did not open its links in time");
}

BOOST_AUTO_TEST_CASE(a_late_look_leaves_the_news_a_moment_to_come) {
  step(D::Greeted{a});
  step(D::Greeted{b});
  now = now + std::chrono::minutes(2);  // the command was stopped, by Ctrl-Z say
  BOOST_TEST(this->deployment->on_time(now).empty());
  BOOST_TEST_REQUIRE(this->deployment->next_deadline().has_value());
  BOOST_TEST((*this->deployment->next_deadline() <= now + seconds(1)));
  step(D::Loaded{a, "same"});
  BOOST_TEST(failure(wait()).find("back") != std::string::npos);
}

// For what may be ended, but need not.
BOOST_AUTO_TEST_CASE(one_more_end_may_be_within_the_bound) {
  plan.failover_restarts = 2;
  begin();
  BOOST_TEST(!deployment->may_lose_one(now));
  bring_up();
  BOOST_TEST(deployment->may_lose_one(now));
  step(D::Failed{b, {ErrorCode::deadline_exceeded, "it is too slow"}});
  BOOST_TEST(!deployment->may_lose_one(now));  // one is on its way
  repair(step(D::Exited{b, "killed"}));
  BOOST_TEST(deployment->may_lose_one(now));
  repair(step(D::Exited{b, "killed"}));
  BOOST_TEST(!deployment->may_lose_one(now));
  now = now + seconds(61);
  BOOST_TEST(deployment->may_lose_one(now));
}

BOOST_AUTO_TEST_CASE(who_cannot_be_reached_is_one_end_however_often_that_is_told) {
  bring_up();
  step(D::LinkBroken{b, {ErrorCode::disconnected, "closed"}});
  const TimePoint deadline = *deployment->next_deadline();
  for (int i = 0; i < 3; ++i) {
    now = now + std::chrono::milliseconds(100);
    step(D::Unreachable{b, {ErrorCode::disconnected, "closed"}});
    BOOST_TEST((deployment->next_deadline() == deadline));
  }
  BOOST_TEST((whose(Kind::kill, wait()) == Processes{1}));
  repair(step(D::Exited{b, "killed"}));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
