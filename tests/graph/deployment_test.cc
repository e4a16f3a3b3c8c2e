#include "graph/deployment.h"

#include <boost/test/unit_test.hpp>

namespace chainpump::graph {
namespace {

using D = Deployment;
using Kind = Deployment::ActionKind;

struct Fixture {
  Fixture() {
    plan.stages.resize(2);
    plan.stages[0].name = "front";
    plan.stages[1].name = "back";
    deployment.emplace(plan, DeploymentLimits{});
    BOOST_TEST_REQUIRE(deployment->start(now).size() == 2u);
  }
  std::vector<D::Action> step(const D::Event& event) { return deployment->step(event, now); }
  /// The one action of this kind, or null.
  static const D::Action* only(D::ActionKind kind, const std::vector<D::Action>& actions) {
    const D::Action* found = nullptr;
    for (const D::Action& action : actions) {
      if (action.kind != kind) continue;
      BOOST_TEST_REQUIRE(found == nullptr);
      found = &action;
    }
    return found;
  }
  void bring_up() {
    for (const RankId s : {a, b}) step(D::Greeted{s});
    for (const RankId s : {a, b}) step(D::Loaded{s, "same"});
    step(D::Connected{a});
    BOOST_TEST_REQUIRE(only(Kind::serve, step(D::Connected{b})) != nullptr);
  }

  const RankId a{0};
  const RankId b{1};
  Plan plan;
  TimePoint now;
  std::optional<D> deployment;
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(deployment, Fixture)

BOOST_AUTO_TEST_CASE(connects_only_when_all_have_loaded) {
  BOOST_TEST(only(Kind::load, step(D::Greeted{a})) != nullptr);
  BOOST_TEST(step(D::Loaded{a, "same"}).empty());
  step(D::Greeted{b});
  BOOST_TEST(step(D::Loaded{b, "same"}).size() == 2u);  // Connect to both
  BOOST_TEST(step(D::Connected{b}).empty());
  BOOST_TEST(only(Kind::serve, step(D::Connected{a})) != nullptr);
  BOOST_TEST((this->deployment->phase() == D::Phase::serving));
  BOOST_TEST(!this->deployment->next_deadline().has_value());
}

BOOST_AUTO_TEST_CASE(refuses_a_lane_that_computes_in_two_ways) {
  for (const RankId s : {a, b}) step(D::Greeted{s});
  step(D::Loaded{a, "avx512"});
  const auto actions = step(D::Loaded{b, "avx2"});
  const D::Action* fail = only(Kind::fail, actions);
  BOOST_TEST_REQUIRE(fail != nullptr);
  BOOST_TEST(fail->error.message.find("avx2") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_death_ends_everything_once_and_names_the_stage) {
  bring_up();
  const auto actions = step(D::Exited{b, "killed by signal 9"});
  const D::Action* fail = only(Kind::fail, actions);
  BOOST_TEST_REQUIRE(fail != nullptr);
  BOOST_TEST(fail->error.message == "stage 'back' died: killed by signal 9");
  BOOST_TEST((only(Kind::shutdown, actions)->rank == a));
  BOOST_TEST(only(Kind::fail, step(D::Failed{a, {ErrorCode::internal, "link broke"}})) == nullptr);
  BOOST_TEST(only(Kind::stopped, step(D::Exited{a, "exit 0"})) != nullptr);
}

BOOST_AUTO_TEST_CASE(a_rank_that_does_not_leave_is_killed) {
  bring_up();
  BOOST_TEST(step(D::StopRequested{}).size() == 2u);
  step(D::Exited{a, "exit 0"});
  BOOST_TEST_REQUIRE(this->deployment->next_deadline().has_value());
  now = *this->deployment->next_deadline();
  const auto actions = this->deployment->on_time(now);
  BOOST_TEST_REQUIRE(actions.size() == 1u);
  BOOST_TEST((only(Kind::kill, actions)->rank == b));
  BOOST_TEST(only(Kind::stopped, step(D::Exited{b, "killed"})) != nullptr);
}

BOOST_AUTO_TEST_CASE(every_wait_has_a_deadline_and_progress_moves_it) {
  step(D::Greeted{a});
  step(D::Greeted{b});
  now = now + std::chrono::seconds(20);
  step(D::LoadProgressed{a});
  step(D::LoadProgressed{b});
  now = now + std::chrono::seconds(20);
  BOOST_TEST(this->deployment->on_time(now).empty());
  step(D::LoadProgressed{a});
  now = *this->deployment->next_deadline();
  const auto actions = this->deployment->on_time(now);
  const D::Action* fail = only(Kind::fail, actions);
  BOOST_TEST_REQUIRE(fail != nullptr);
  BOOST_TEST((fail->error.code == ErrorCode::deadline_exceeded));
  BOOST_TEST(fail->error.message.find("back") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_late_look_leaves_the_news_a_moment_to_come) {
  step(D::Greeted{a});
  step(D::Greeted{b});
  now = now + std::chrono::minutes(2);  // the command was stopped, by Ctrl-Z say
  BOOST_TEST(this->deployment->on_time(now).empty());
  BOOST_TEST_REQUIRE(this->deployment->next_deadline().has_value());
  BOOST_TEST((*this->deployment->next_deadline() <= now + std::chrono::seconds(1)));
  step(D::Loaded{a, "same"});
  now = *this->deployment->next_deadline();
  const auto actions = this->deployment->on_time(now);
  const D::Action* fail = only(Kind::fail, actions);
  BOOST_TEST_REQUIRE(fail != nullptr);
  BOOST_TEST(fail->error.message.find("back") != std::string::npos);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
