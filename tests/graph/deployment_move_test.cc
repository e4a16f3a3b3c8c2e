// A rank's place is given to another process, told by hand: graph/rank_move.h.
#include "tests/graph/deployment_fixture.h"

namespace chainpump::graph {
namespace {

const ProcessId kSpare{2};  // of two stages without standbys

struct Moving : DeploymentFixture {
  using Actions = std::vector<D::Action>;

  /// Until the copy is under way.
  void ask(RankId place, ProcessId to = kSpare) {
    BOOST_TEST_REQUIRE(deployment->may_move(place).ok());
    const Actions first = step(D::MoveRequested{place});
    const Actions take_in = to == kSpare && !plan.stages[1].standbys ? load(to) : first;
    BOOST_TEST_REQUIRE(whose(Kind::take_in, take_in) == Processes{to.value});
    const Actions copy = step(D::TakingIn{to, deployment->move()->number});
    BOOST_TEST_REQUIRE(only(Kind::copy, copy) != nullptr);
    BOOST_TEST((only(Kind::copy, copy)->newcomer == to));
  }
  /// Until the place has changed hands; what that brings with it.
  Actions change_hands(ProcessId from, ProcessId to) {
    const PlanEpoch epoch(deployment->epoch(kLane0).value + 1);
    BOOST_TEST((whose(Kind::fence, step(D::Copied{from, deployment->move()->number})).size() ==
                plan.stages.size()));
    Actions next;
    for (uint32_t place = 0; place < plan.stages.size(); ++place)
      for (D::Action& action :
           step(D::Fenced{deployment->process_in(RankId(place)), kLane0, epoch}))
        next.push_back(action);
    BOOST_TEST_REQUIRE(whose(Kind::finish, next) == Processes{from.value});
    BOOST_TEST(next.size() == 1u);  // nobody connects yet
    BOOST_TEST((whose(Kind::fence, step(D::Finished{from, deployment->move()->number})) ==
                Processes{to.value}));
    return step(D::Fenced{to, kLane0, epoch});
  }
  /// Answers what is asked until the move is over.
  Actions serve(Actions actions) {
    for (int round = 0; round < 10; ++round) {
      Actions next;
      for (const D::Action& action : actions) {
        if (action.kind == Kind::lane_serving) return actions;
        Actions more;
        if (action.kind == Kind::fence)
          more = step(D::Fenced{action.process, action.lane, action.epoch});
        if (action.kind == Kind::connect)
          more = step(D::Connected{action.process, action.lane, action.epoch});
        if (action.kind == Kind::resume) more = step(D::Resumed{action.lane, action.epoch});
        next.insert(next.end(), more.begin(), more.end());
      }
      actions = std::move(next);
    }
    BOOST_FAIL("the lane does not serve");
    return {};
  }
  std::string why_not(const Actions& actions) {
    const D::Action* const found = only(Kind::not_moved, actions);
    return found == nullptr ? "" : found->error.message;
  }
};

struct MovingToStandby : Moving {
  MovingToStandby() {
    plan.stages[1].standbys = 1;
    begin();
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(deployment_move, Moving)

BOOST_AUTO_TEST_CASE(a_rank_moves_to_a_process_of_its_own_and_back) {
  bring_up();
  ask(RankId(1));
  auto actions = change_hands(b, kSpare);
  BOOST_TEST((whose(Kind::connect, actions) == Processes{0, 2}));
  BOOST_TEST((deployment->process_in(RankId(1)) == kSpare));
  actions = serve(actions);
  BOOST_TEST_REQUIRE(only(Kind::lane_serving, actions) != nullptr);
  BOOST_TEST((only(Kind::lane_serving, actions)->first_since == PlanEpoch(1)));
  BOOST_TEST((whose(Kind::kill, actions) == Processes{1}));
  BOOST_TEST((whose(Kind::moved, actions) == Processes{2}));
  BOOST_TEST(deployment->record().ends.empty());
  BOOST_TEST(check(deployment->record(), plan).ok());

  BOOST_TEST((deployment->may_move(RankId(0)).error().code == ErrorCode::overloaded));
  BOOST_TEST(step(D::Exited{b, "killed"}).empty());
  BOOST_TEST(!deployment->next_deadline().has_value());

  // What is the spare now had another place before.
  BOOST_TEST((whose(Kind::spawn, step(D::MoveRequested{RankId(0)})) == Processes{1}));
  const auto load = step(D::Greeted{b});
  BOOST_TEST((only(Kind::load, load)->place == RankId(0)));
  BOOST_TEST((whose(Kind::take_in, step(D::Loaded{b, "same"})) == Processes{1}));
  step(D::TakingIn{b, deployment->move()->number});
  actions = serve(change_hands(a, b));
  // The lane's clients attach anew.
  BOOST_TEST((only(Kind::lane_serving, actions)->first_since == PlanEpoch(3)));
  BOOST_TEST((only(Kind::lane_serving, actions)->process == b));
}

BOOST_AUTO_TEST_CASE(what_cannot_be_is_said) {
  BOOST_TEST((deployment->may_move(RankId(0)).error().code == ErrorCode::overloaded));
  bring_up();
  BOOST_TEST((deployment->may_move(RankId(2)).error().code == ErrorCode::not_found));
  step(D::MoveRequested{RankId(0)});
  const auto second = deployment->may_move(RankId(1));
  BOOST_TEST(second.error().message == "stage 'front' is being moved; one at a time");
  step(D::NotStarted{kSpare, {ErrorCode::no_room, "no memory"}});
  BOOST_TEST(deployment->may_move(RankId(1)).ok());
  step(D::Exited{a, "killed"});
  BOOST_TEST((deployment->may_move(RankId(1)).error().code == ErrorCode::overloaded));
}

BOOST_AUTO_TEST_CASE(who_goes_before_the_switch_leaves_the_old_plan) {
  bring_up();
  // It cannot be started.
  step(D::MoveRequested{RankId(1)});
  auto actions = step(D::NotStarted{kSpare, {ErrorCode::no_room, "no memory"}});
  BOOST_TEST(why_not(actions) == "the new rank of stage 'back': no memory");
  // It computes otherwise.
  step(D::MoveRequested{RankId(1)});
  step(D::Greeted{kSpare});
  actions = step(D::Loaded{kSpare, "otherwise"});
  BOOST_TEST(!why_not(actions).empty());
  BOOST_TEST((whose(Kind::kill, actions) == Processes{2}));
  step(D::Exited{kSpare, "killed"});
  // It dies during the copy.
  ask(RankId(1));
  BOOST_TEST(!why_not(step(D::Exited{kSpare, "killed"})).empty());
  // The copy comes to a halt.
  ask(RankId(1));
  step(D::CopyProgressed{b, deployment->move()->number});
  actions = wait();
  BOOST_TEST(why_not(actions) == "stage 'back' did not copy what it holds in time");
  step(D::Exited{kSpare, "killed"});
  // Nothing of that was a repair.
  BOOST_TEST(deployment->record().ends.empty());
  BOOST_TEST((deployment->epoch(kLane0) == PlanEpoch(1)));
  BOOST_TEST((deployment->process_in(RankId(1)) == b));
  BOOST_TEST(!deployment->next_deadline().has_value());
}

BOOST_AUTO_TEST_CASE(a_newcomer_that_goes_while_the_lane_waits_is_done_without) {
  bring_up();
  ask(RankId(1));
  step(D::Copied{b, deployment->move()->number});
  step(D::Fenced{a, kLane0, PlanEpoch(2)});
  BOOST_TEST((whose(Kind::finish, step(D::Fenced{b, kLane0, PlanEpoch(2)})) == Processes{1}));
  auto actions = step(D::Exited{kSpare, "killed"});
  BOOST_TEST(!why_not(actions).empty());
  BOOST_TEST((whose(Kind::connect, actions) == Processes{0, 1}));
  BOOST_TEST((only(Kind::lane_serving, serve(actions))->first_since == PlanEpoch(1)));
  BOOST_TEST(deployment->record().ends.empty());
  // The same when the rest does not come.
  ask(RankId(0));
  step(D::Copied{a, deployment->move()->number});
  step(D::Fenced{a, kLane0, PlanEpoch(3)});
  step(D::Fenced{b, kLane0, PlanEpoch(3)});
  actions = wait();
  BOOST_TEST(why_not(actions) == "stage 'front' did not copy the rest in time");
  BOOST_TEST((whose(Kind::kill, actions) == Processes{2}));
  BOOST_TEST((only(Kind::lane_serving, serve(actions))->first_since == PlanEpoch(1)));
}

BOOST_AUTO_TEST_CASE(the_ranks_own_death_is_repaired_without_the_newcomer) {
  bring_up();
  ask(RankId(1));
  step(D::Copied{b, deployment->move()->number});
  const auto actions = step(D::Exited{b, "killed"});
  BOOST_TEST(!why_not(actions).empty());
  BOOST_TEST((whose(Kind::kill, actions) == Processes{2}));
  BOOST_TEST((whose(Kind::spawn, actions) == Processes{1}));
  BOOST_TEST((repair(actions).epoch == PlanEpoch(3)));
  BOOST_TEST(deployment->record().ends.size() == 1u);
}

BOOST_AUTO_TEST_CASE(another_repair_comes_first) {
  bring_up();
  ask(RankId(1));
  const auto actions = step(D::Exited{a, "killed"});
  BOOST_TEST(why_not(actions) == "something else has to be repaired first");
  BOOST_TEST((repair(actions).epoch == PlanEpoch(2)));
  BOOST_TEST((deployment->process_in(RankId(1)) == b));
}

BOOST_AUTO_TEST_CASE(the_newcomers_death_after_the_switch_is_an_ordinary_end) {
  bring_up();
  ask(RankId(1));
  change_hands(b, kSpare);
  const auto actions = step(D::Exited{kSpare, "killed"});
  BOOST_TEST(!why_not(actions).empty());
  BOOST_TEST((whose(Kind::kill, actions) == Processes{1}));
  BOOST_TEST((whose(Kind::spawn, actions) == Processes{2}));
  BOOST_TEST(deployment->record().ends.size() == 1u);
  BOOST_TEST((repair(actions).epoch == PlanEpoch(3)));
}

BOOST_AUTO_TEST_CASE(a_coordinator_that_takes_over_ends_what_is_in_no_place) {
  bring_up();
  ask(RankId(1));
  const DeploymentRecord before = deployment->record();
  change_hands(b, kSpare);
  const DeploymentRecord after = deployment->record();
  const auto take_over = [&](const DeploymentRecord& record) {
    BOOST_TEST_REQUIRE(check(record, plan).ok());
    deployment.emplace(plan, DeploymentLimits{});
    return whose(Kind::kill, deployment->adopt(record, {a, b, kSpare}, now));
  };
  BOOST_TEST((take_over(before) == Processes{2}));
  BOOST_TEST((deployment->process_in(RankId(1)) == b));
  BOOST_TEST((take_over(after) == Processes{1}));
  BOOST_TEST((deployment->process_in(RankId(1)) == kSpare));
  // It says what it holds.
  step(D::Exited{b, "killed"});
  step(D::Greeted{kSpare});
  const auto actions = step(D::Loaded{kSpare, "same", {{kLane0, {PlanEpoch(2), true, false}}}});
  BOOST_TEST((whose(Kind::fence, actions) == Processes{2}));
  BOOST_TEST(step(D::Exited{b, "killed"}).empty());
}

BOOST_FIXTURE_TEST_CASE(a_standby_that_has_loaded_is_the_newcomer, MovingToStandby) {
  bring_up();
  ask(RankId(1), c);
  auto actions = serve(change_hands(b, c));
  BOOST_TEST((whose(Kind::kill, actions) == Processes{1}));
  actions = step(D::Exited{b, "killed"});
  BOOST_TEST((whose(Kind::spawn, actions) == Processes{1}));
  BOOST_TEST(actions.size() == 1u);
  BOOST_TEST(load(b).empty());  // and stands by
  BOOST_TEST(deployment->record().ends.empty());
  step(D::Exited{c, "killed"});
  BOOST_TEST((deployment->process_in(RankId(1)) == b));
}

BOOST_FIXTURE_TEST_CASE(a_standby_that_was_in_a_move_is_made_anew, MovingToStandby) {
  bring_up();
  ask(RankId(1), c);
  const DeploymentRecord record = deployment->record();
  deployment.emplace(plan, DeploymentLimits{});
  const auto actions = deployment->adopt(record, {a, b, c}, now);
  BOOST_TEST((whose(Kind::kill, actions) == Processes{2}));
  step(D::Greeted{c});
  BOOST_TEST((whose(Kind::spawn, step(D::Exited{c, "killed"})) == Processes{2}));
  BOOST_TEST(deployment->record().ends.empty());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
