// What a deployment does when a rank has gone or a link has broken.
#include "tests/graph/deployment_fixture.h"

namespace chainpump::graph {
namespace {

/// Three stages and standbys, as the middle one has them.
struct ThreeStages : DeploymentFixture {
  ThreeStages() { with_standbys(0); }
  void with_standbys(int32_t count) {
    plan.stages.resize(3);
    plan.stages[1].name = "middle";
    plan.stages[2].name = "back";
    plan.stages[1].standbys = count;
    begin();
  }
};

/// Two lanes: the front serves both, the back has a rank for each. Processes: front, back 0,
/// back 1.
struct TwoLanes : DeploymentFixture {
  TwoLanes() {
    plan.stages[1].devices.resize(2);
    begin();
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(deployment_repair, DeploymentFixture)

// ------------------------------------------------------------------------------- repair

BOOST_FIXTURE_TEST_CASE(a_standby_takes_the_place_at_once, ThreeStages) {
  with_standbys(1);
  bring_up();
  const ProcessId standby{3};
  auto actions = step(D::Exited{b, "killed"});
  BOOST_TEST((whose(Kind::spawn, actions) == Processes{1}));
  BOOST_TEST((whose(Kind::fence, actions) == Processes{0, 2}));
  BOOST_TEST_REQUIRE(only(Kind::repairing, actions) != nullptr);
  BOOST_TEST(only(Kind::repairing, actions)->error.message == "stage 'middle' died: killed");
  BOOST_TEST(actions.size() == 4u);
  BOOST_TEST((this->deployment->process_in(RankId(1)) == standby));
  BOOST_TEST(step(D::Fenced{a, kLane0, PlanEpoch(2)}).empty());
  actions = step(D::Fenced{c, kLane0, PlanEpoch(2)});
  BOOST_TEST((whose(Kind::connect, actions) == Processes{0, 3, 2}));
  BOOST_TEST(actions.size() == 3u);
  BOOST_TEST(step(D::Connected{standby, kLane0, PlanEpoch(2)}).empty());
  BOOST_TEST(step(D::Connected{c, kLane0, PlanEpoch(2)}).empty());
  actions = step(D::Connected{a, kLane0, PlanEpoch(2)});
  BOOST_TEST_REQUIRE(actions.size() == 1u);
  BOOST_TEST((actions[0].kind == Kind::resume && actions[0].process == a));
  actions = step(D::Resumed{kLane0, PlanEpoch(2)});
  BOOST_TEST_REQUIRE(actions.size() == 1u);
  BOOST_TEST((actions[0].kind == Kind::lane_serving && actions[0].process == a));
  BOOST_TEST((actions[0].first_since == PlanEpoch(1)));
  // Its successor is the standby now, and loads what that has loaded.
  actions = step(D::Greeted{b});
  BOOST_TEST((only(Kind::load, actions)->place == RankId(1)));
  BOOST_TEST(step(D::Loaded{b, "same"}).empty());
  BOOST_TEST(!this->deployment->next_deadline().has_value());
  // And takes the place in turn.
  actions = step(D::Exited{standby, "killed"});
  BOOST_TEST((whose(Kind::spawn, actions) == Processes{3}));
  repair(actions);
  BOOST_TEST((this->deployment->process_in(RankId(1)) == b));
}

BOOST_FIXTURE_TEST_CASE(without_a_standby_another_is_started, ThreeStages) {
  bring_up();
  auto actions = step(D::Exited{b, "killed"});
  BOOST_TEST((whose(Kind::spawn, actions) == Processes{1}));
  step(D::Fenced{a, kLane0, PlanEpoch(2)});
  BOOST_TEST(step(D::Fenced{c, kLane0, PlanEpoch(2)}).empty());
  step(D::Greeted{b});
  BOOST_TEST((whose(Kind::connect, step(D::Loaded{b, "same"})) == Processes{0, 1, 2}));
}

BOOST_FIXTURE_TEST_CASE(a_standby_on_its_way_is_waited_for, ThreeStages) {
  with_standbys(1);
  bring_up();
  step(D::Exited{ProcessId(3), "killed"});
  step(D::Greeted{ProcessId(3)});
  auto actions = step(D::Exited{b, "killed"});
  BOOST_TEST((this->deployment->process_in(RankId(1)) == ProcessId(3)));
  step(D::Fenced{a, kLane0, PlanEpoch(2)});
  step(D::Fenced{c, kLane0, PlanEpoch(2)});
  BOOST_TEST(load(b).empty());  // the standby now
  actions = step(D::Loaded{ProcessId(3), "same"});
  BOOST_TEST((whose(Kind::connect, actions) == Processes{0, 3, 2}));
}

BOOST_AUTO_TEST_CASE(the_death_of_a_standby_disturbs_nobody) {
  plan.stages[1].standbys = 2;
  begin();
  bring_up();
  const auto actions = step(D::Exited{ProcessId(2), "killed"});
  BOOST_TEST_REQUIRE(actions.size() == 2u);
  BOOST_TEST(only(Kind::repairing, actions) != nullptr);
  BOOST_TEST((whose(Kind::spawn, actions) == Processes{2}));
  BOOST_TEST(load(ProcessId(2)).empty());
}

BOOST_AUTO_TEST_CASE(says_since_when_the_first_rank_is_new) {
  bring_up();
  BOOST_TEST((repair(step(D::Exited{b, "killed"})).first_since == PlanEpoch(1)));
  BOOST_TEST((repair(step(D::Exited{a, "killed"})).first_since == PlanEpoch(3)));
  const D::Action again = repair(step(D::Exited{b, "killed"}));
  BOOST_TEST((again.first_since == PlanEpoch(3)));
  BOOST_TEST((again.epoch == PlanEpoch(4)));
  BOOST_TEST((again.process == a));
}

BOOST_AUTO_TEST_CASE(answers_of_an_older_epoch_are_void) {
  plan.stages[1].standbys = 2;
  begin();
  bring_up();
  step(D::Exited{b, "killed"});
  const auto actions = step(D::Exited{ProcessId(2), "killed"});  // it has just taken the place
  BOOST_TEST((whose(Kind::fence, actions) == Processes{0}));
  BOOST_TEST((only(Kind::fence, actions)->epoch == PlanEpoch(3)));
  BOOST_TEST(step(D::Fenced{a, kLane0, PlanEpoch(2)}).empty());
  BOOST_TEST(step(D::Fenced{a, kLane0, PlanEpoch(3)}).size() == 2u);
  BOOST_TEST(step(D::Connected{a, kLane0, PlanEpoch(2)}).empty());
  BOOST_TEST(step(D::Connected{ProcessId(3), kLane0, PlanEpoch(2)}).empty());
  BOOST_TEST(step(D::Connected{a, kLane0, PlanEpoch(3)}).empty());
  BOOST_TEST(step(D::Resumed{kLane0, PlanEpoch(3)}).empty());  // nobody has asked
  BOOST_TEST(only(Kind::resume, step(D::Connected{ProcessId(3), kLane0, PlanEpoch(3)})) != nullptr);
  BOOST_TEST(step(D::Resumed{kLane0, PlanEpoch(2)}).empty());
  BOOST_TEST(step(D::Resumed{kLane0, PlanEpoch(3)}).size() == 1u);
}

BOOST_FIXTURE_TEST_CASE(a_death_at_any_moment_begins_anew, ThreeStages) {
  // After so many answers, the last stage dies, too; or the one that has just taken the place.
  for (const uint32_t second : {2u, 3u})
    for (size_t after = 0; after < 8; ++after) {
      with_standbys(1);
      bring_up();
      std::vector<D::Action> open = step(D::Exited{b, "killed"});
      std::erase_if(open, [](const D::Action& action) { return action.kind == Kind::spawn; });
      for (size_t i = 0; i < after && !open.empty(); ++i) {
        const D::Action action = open.front();
        open.erase(open.begin());
        std::vector<D::Action> more;
        if (action.kind == Kind::fence)
          more = step(D::Fenced{action.process, action.lane, action.epoch});
        if (action.kind == Kind::connect)
          more = step(D::Connected{action.process, action.lane, action.epoch});
        if (action.kind == Kind::resume) more = step(D::Resumed{action.lane, action.epoch});
        open.insert(open.end(), more.begin(), more.end());
      }
      auto actions = step(D::Exited{ProcessId(second), "killed"});
      for (const D::Action& action : actions)
        if (action.kind == Kind::fence) BOOST_TEST((action.epoch == PlanEpoch(3)));
      actions.push_back({.kind = Kind::spawn, .process = b});
      BOOST_TEST((repair(actions).epoch == PlanEpoch(3)));
    }
}

BOOST_AUTO_TEST_CASE(all_ranks_may_die_at_once) {
  bring_up();
  auto actions = step(D::Exited{a, "killed"});
  const auto more = step(D::Exited{b, "killed"});
  BOOST_TEST(whose(Kind::fence, more).empty());
  actions.insert(actions.end(), more.begin(), more.end());
  const D::Action serving = repair(actions);
  BOOST_TEST((serving.first_since == PlanEpoch(3)));
}

// ------------------------------------------------------------------------------- several lanes

BOOST_FIXTURE_TEST_CASE(a_lane_that_is_not_touched_sees_nothing, TwoLanes) {
  bring_up();
  const auto actions = step(D::Exited{c, "killed"});  // of lane 1 alone
  BOOST_TEST_REQUIRE(actions.size() == 3u);
  BOOST_TEST((whose(Kind::spawn, actions) == Processes{2}));
  BOOST_TEST((only(Kind::fence, actions)->process == a));
  BOOST_TEST((only(Kind::fence, actions)->lane == kLane1));
  BOOST_TEST((this->deployment->state(kLane0) == LaneRepair::State::serving));
  // The front's link of lane 1 has broken with that; it cannot say which of its links.
  step(D::LinkBroken{a, {ErrorCode::disconnected, "link broke"}});
  BOOST_TEST(repair(actions, kLane1).epoch.value == 2u);
  BOOST_TEST(!this->deployment->next_deadline().has_value());
  BOOST_TEST((this->deployment->epoch(kLane0) == PlanEpoch(1)));
}

BOOST_FIXTURE_TEST_CASE(the_death_of_a_shared_rank_is_repaired_in_each_lane, TwoLanes) {
  bring_up();
  const auto actions = step(D::Exited{a, "killed"});
  BOOST_TEST((whose(Kind::fence, actions) == Processes{1, 2}));
  step(D::Fenced{b, kLane0, PlanEpoch(2)});
  step(D::Fenced{c, kLane1, PlanEpoch(2)});
  BOOST_TEST((whose(Kind::connect, load(a)) == Processes{0, 1, 0, 2}));
}

// ------------------------------------------------------------------------------- links

BOOST_AUTO_TEST_CASE(a_link_that_broke_without_a_death_is_repaired_after_a_while) {
  bring_up();
  BOOST_TEST(step(D::LinkBroken{a, {ErrorCode::disconnected, "link broke"}}).empty());
  const auto actions = wait();
  BOOST_TEST((whose(Kind::fence, actions) == Processes{0, 1}));
  BOOST_TEST(only(Kind::repairing, actions)->error.message == "stage 'front': link broke");
  BOOST_TEST(actions.size() == 3u);
  repair(actions);
  // A death that explains it is all there is to repair.
  step(D::LinkBroken{a, {ErrorCode::disconnected, "link broke"}});
  repair(step(D::Exited{b, "killed"}));
  BOOST_TEST(!this->deployment->next_deadline().has_value());
}

BOOST_AUTO_TEST_CASE(a_link_that_does_not_open_is_tried_with_another_epoch) {
  bring_up();
  const PlanEpoch epoch(2);
  // Told so, or by the deadline.
  for (const bool told : {true, false}) {
    begin();
    bring_up();
    step(D::Exited{b, "killed"});
    step(D::Fenced{a, kLane0, epoch});
    load(b);
    step(D::Connected{a, kLane0, epoch});
    if (told) step(D::CallFailed{b, kLane0, epoch, {ErrorCode::internal, "no link"}});
    const auto actions = wait();
    BOOST_TEST((whose(Kind::fence, actions) == Processes{0, 1}));
    BOOST_TEST((actions.back().epoch == PlanEpoch(3)));
    repair(actions);
  }
}

// ------------------------------------------------------------------------------- who hangs or
// fails

BOOST_AUTO_TEST_CASE(who_does_not_answer_a_fence_is_killed_and_replaced) {
  bring_up();
  step(D::LinkBroken{a, {ErrorCode::disconnected, "link broke"}});
  wait();
  step(D::Fenced{a, kLane0, PlanEpoch(2)});
  const auto fenced_at = now;
  auto actions = wait();
  BOOST_TEST((now - fenced_at == LaneRepairLimits{}.fence_max));
  BOOST_TEST((whose(Kind::kill, actions) == Processes{1}));
  BOOST_TEST(actions.size() == 1u);
  BOOST_TEST(step(D::Fenced{b, kLane0, PlanEpoch(2)}).empty());  // too late
  repair(step(D::Exited{b, "killed by SIGKILL (Killed)"}));
}

BOOST_AUTO_TEST_CASE(a_late_look_does_not_kill_who_has_answered_meanwhile) {
  bring_up();
  step(D::Exited{b, "killed"});
  load(b);
  now = now + seconds(100);
  BOOST_TEST(this->deployment->on_time(now).empty());
  BOOST_TEST((whose(Kind::connect, step(D::Fenced{a, kLane0, PlanEpoch(2)})) == Processes{0, 1}));
}

BOOST_AUTO_TEST_CASE(a_first_rank_that_does_not_resume_is_killed) {
  bring_up();
  step(D::Exited{b, "killed"});
  step(D::Fenced{a, kLane0, PlanEpoch(2)});
  load(b);
  step(D::Connected{a, kLane0, PlanEpoch(2)});
  BOOST_TEST((whose(Kind::resume, step(D::Connected{b, kLane0, PlanEpoch(2)})) == Processes{0}));
  BOOST_TEST((whose(Kind::kill, wait()) == Processes{0}));
  BOOST_TEST(step(D::Resumed{kLane0, PlanEpoch(2)}).empty());
  BOOST_TEST((repair(step(D::Exited{a, "killed"})).first_since == PlanEpoch(3)));
}

BOOST_AUTO_TEST_CASE(who_fails_while_serving_is_killed_and_replaced) {
  bring_up();
  BOOST_TEST(
      (whose(Kind::kill, step(D::Failed{b, {ErrorCode::internal, "bad frame"}})) == Processes{1}));
  BOOST_TEST(step(D::Failed{b, {ErrorCode::internal, "again"}}).empty());
  repair(step(D::Exited{b, "killed"}));
  // One that nobody can reach, and that has not died.
  step(D::Unreachable{b, {ErrorCode::disconnected, "closed"}});
  BOOST_TEST((whose(Kind::kill, wait()) == Processes{1}));
  repair(step(D::Exited{b, "killed"}));
  BOOST_TEST((whose(Kind::kill, step(D::Failed{a, {ErrorCode::internal, "bad"}})) == Processes{0}));
  BOOST_TEST(failure(wait()) == "stage 'front': bad; it does not end, although killed");
}

BOOST_AUTO_TEST_CASE(a_replacement_that_does_not_load_is_another_end) {
  struct Case {
    std::optional<D::Event> event;  // or its deadline
    bool greeted;
    const char* why;
  };
  const std::vector<Case> table = {
      {D::Failed{b, {ErrorCode::bad_file, "no tensor"}}, true, "stage 'back': no tensor"},
      {D::Loaded{b, "other"}, true, "stage 'back' computes as other, all others as same"},
      {std::nullopt, true, "stage 'back' did not load its weights in time"},
      {std::nullopt, false, "stage 'back' did not say hello in time"}};
  plan.failover_restarts = 2;
  plan.failover_window = std::chrono::minutes(10);
  for (const Case& each : table) {
    begin();
    bring_up();
    step(D::Exited{b, "killed"});
    step(D::Fenced{a, kLane0, PlanEpoch(2)});
    for (int end = 0; end < 2; ++end) {
      if (each.greeted) step(D::Greeted{b});
      BOOST_TEST((whose(Kind::kill, each.event ? step(*each.event) : wait()) == Processes{1}));
      const auto actions = step(D::Exited{b, "killed"});
      if (end == 0)
        BOOST_TEST((whose(Kind::spawn, actions) == Processes{1}));
      else
        BOOST_TEST(failure(actions) ==
                   each.why + std::string("; that is the 3rd end of a rank within 600 s "
                                          "(failover.restarts: 2)"));
      step(D::Fenced{a, kLane0, PlanEpoch(3)});
    }
  }
}

// ------------------------------------------------------------------------------- the bound

BOOST_AUTO_TEST_CASE(too_many_ends_within_the_window_fail_the_deployment) {
  bring_up();
  for (int i = 0; i < 5; ++i) {
    now = now + seconds(10);
    repair(step(D::Exited{b, "killed by SIGKILL (Killed)"}));
  }
  now = now + seconds(21);  // one has passed
  repair(step(D::Exited{b, "killed by SIGKILL (Killed)"}));
  const auto actions = step(D::Exited{b, "killed by SIGKILL (Killed)"});
  BOOST_TEST(failure(actions) ==
             "stage 'back' died: killed by SIGKILL (Killed); that is the 6th end of a rank within "
             "60 s (failover.restarts: 5)");
  BOOST_TEST((whose(Kind::shutdown, actions) == Processes{0}));
  BOOST_TEST(only(Kind::stopped, step(D::Exited{a, "exit 0"})) != nullptr);
}

BOOST_AUTO_TEST_CASE(broken_links_are_bounded_too) {
  plan.failover_restarts = 1;
  plan.failover_window = milliseconds(2500);
  begin();
  bring_up();
  step(D::LinkBroken{a, {ErrorCode::disconnected, "no way"}});
  repair(wait());
  step(D::LinkBroken{a, {ErrorCode::disconnected, "no way"}});
  BOOST_TEST(failure(wait()) ==
             "stage 'front': no way; that is the 2nd end of a rank or link within 2500 ms "
             "(failover.restarts: 1)");
}

BOOST_AUTO_TEST_CASE(without_restarts_any_end_fails_the_deployment) {
  struct Case {
    D::Event event;
    bool waits;
    const char* why;
  };
  const std::vector<Case> table = {
      {D::Exited{b, "killed by signal 9"}, false, "stage 'back' died: killed by signal 9"},
      {D::Failed{b, {ErrorCode::internal, "bad frame"}}, false, "stage 'back': bad frame"},
      {D::LinkBroken{b, {ErrorCode::disconnected, "broke"}}, true, "stage 'back': broke"},
      {D::Unreachable{b, {ErrorCode::disconnected, "closed"}}, true, "stage 'back': closed"}};
  plan.failover_restarts = 0;
  for (const Case& each : table) {
    begin();
    bring_up();
    auto actions = step(each.event);
    if (each.waits) actions = wait();
    BOOST_TEST(failure(actions) == each.why);
  }
}

BOOST_AUTO_TEST_CASE(who_cannot_be_started_fails_the_deployment) {
  const Error gone{ErrorCode::disconnected, "the agent is gone"};
  BOOST_TEST(failure(step(D::NotStarted{a, gone})) == "stage 'front': the agent is gone");
  BOOST_TEST(only(Kind::stopped, step(D::NotStarted{b, gone})) != nullptr);
  begin();
  bring_up();
  step(D::Exited{b, "its node agent died"});
  const auto actions = step(D::NotStarted{b, gone});
  BOOST_TEST(
      failure(actions) ==
      "stage 'back' died: its node agent died; another cannot be started: the agent is gone");
  BOOST_TEST((whose(Kind::shutdown, actions) == Processes{0}));
}

BOOST_AUTO_TEST_CASE(stops_in_the_middle_of_a_repair) {
  plan.stages[1].standbys = 1;
  begin();
  bring_up();
  step(D::Failed{b, {ErrorCode::internal, "bad"}});
  const auto actions = step(D::StopRequested{});
  BOOST_TEST((whose(Kind::shutdown, actions) == Processes{0, 2}));  // b is killed already
  step(D::Exited{b, "killed"});
  BOOST_TEST(step(D::Fenced{a, kLane0, PlanEpoch(2)}).empty());
  step(D::Exited{a, "exit 0"});
  BOOST_TEST(only(Kind::stopped, step(D::Exited{c, "exit 0"})) != nullptr);
  BOOST_TEST(!this->deployment->next_deadline().has_value());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
