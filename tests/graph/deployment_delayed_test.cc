// A process whose node is away: it is waited for, within bounds, unless a standby comes first.
#include "graph/deployment.h"

#include <boost/test/unit_test.hpp>

#include "tests/graph/deployment_fixture.h"

namespace chainpump::graph {
namespace {

BOOST_FIXTURE_TEST_SUITE(deployment_delayed, DeploymentFixture)

BOOST_AUTO_TEST_CASE(who_is_delayed_is_waited_for) {
  const Error away{ErrorCode::overloaded, "node 'n': it is away"};
  bring_up();
  const auto actions = step(D::Exited{b, "its node 'n' was lost"});
  BOOST_TEST((whose(Kind::spawn, actions) == Processes{1}));
  BOOST_TEST(step(D::Delayed{b, away}).empty());
  BOOST_TEST(step(D::Fenced{a, kLane0, PlanEpoch(2)}).empty());
  now = now + minutes(4);
  BOOST_TEST(deployment->on_time(now).empty());
  BOOST_TEST(step(D::Delayed{b, away}).empty());  // no news: it gets no longer for it
  BOOST_TEST(failure(wait()) == "stage 'back' cannot be started: node 'n': it is away");
  step(D::Exited{a, "exit 0"});
  BOOST_TEST(only(Kind::stopped, step(D::Exited{b, "it was never started"})) != nullptr);
}

BOOST_AUTO_TEST_CASE(who_was_delayed_comes_back) {
  bring_up();
  auto actions = step(D::Exited{b, "its node 'n' was lost"});
  step(D::Delayed{b, {ErrorCode::overloaded, "away"}});
  now = now + minutes(4);
  for (const D::Action& action : load(b)) actions.push_back(action);
  std::erase_if(actions, [](const D::Action& action) { return action.kind == Kind::spawn; });
  repair(actions);
  BOOST_TEST(!deployment->next_deadline().has_value());
}

// It has loaded before the one whose place is waited for; and one that is delayed itself is nobody
// to take a place.
BOOST_AUTO_TEST_CASE(a_standby_takes_the_place_of_who_is_delayed) {
  const Error away{ErrorCode::overloaded, "away"};
  plan.stages[1].standbys = 1;
  begin();
  bring_up();
  step(D::Exited{c, "killed"});
  step(D::Delayed{c, away});
  now = now + minutes(20);  // a standby is waited for longer than a rank
  BOOST_TEST(deployment->on_time(now).empty());
  auto actions = step(D::Exited{b, "killed"});
  BOOST_TEST((deployment->process_in(RankId(1)) == b));
  step(D::Delayed{b, away});
  for (const D::Action& action : load(c)) actions.push_back(action);
  BOOST_TEST((deployment->process_in(RankId(1)) == c));
  std::erase_if(actions, [](const D::Action& action) { return action.kind == Kind::spawn; });
  repair(actions);
  BOOST_TEST(load(b).empty());
  BOOST_TEST((deployment->process_in(RankId(1)) == c));
  BOOST_TEST(!deployment->next_deadline().has_value());
}

BOOST_AUTO_TEST_CASE(nobody_is_waited_for_at_the_start) {
  BOOST_TEST(failure(step(D::Delayed{a, {ErrorCode::overloaded, "away"}})) ==
             "stage 'front': away");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::graph
