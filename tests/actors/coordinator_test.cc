// The coordinator and the node agent: what they ask of ranks, and what they tell the observer.
#include "tests/actors/coordinator_world.h"

namespace chainpump::actors {

BOOST_FIXTURE_TEST_SUITE(coordinator, CoordinatorFixture)

BOOST_AUTO_TEST_CASE(a_repair_has_new_links_and_what_the_others_hold) {
  const auto before = world.locked([&] { return world.connects; });
  BOOST_TEST(before.size() == 2u);  // the standby has no links
  BOOST_TEST(before.at(0).epoch == 1u);
  BOOST_TEST(before.at(0).links.at(0).address == "rank 1");
  BOOST_TEST(before.at(0).links.at(0).secret == before.at(1).accept.at(0).secret);

  world.on_exit(RankId(1), "killed by SIGKILL (Killed)");
  repaired(1);
  auto connects = world.locked([&] { return world.connects; });
  const rpc::ConnectParams& front = connects.at(0);
  const rpc::ConnectParams& back = connects.at(2);
  BOOST_TEST(front.epoch == 2u);
  BOOST_TEST(front.links.at(0).address == "rank 2");
  BOOST_TEST(back.links.at(0).address == "rank 0");
  BOOST_TEST(front.links.at(0).edge == 0u);
  BOOST_TEST(front.accept.at(0).edge == 1u);
  BOOST_TEST(front.links.at(0).incarnation == 2u);
  BOOST_TEST(front.links.at(0).secret == back.accept.at(0).secret);
  BOOST_TEST(back.links.at(0).secret == front.accept.at(0).secret);
  BOOST_TEST(front.links.at(0).secret != before.at(0).links.at(0).secret);
  world.locked([&] {
    BOOST_TEST((world.repaired[0].first_since == PlanEpoch(1)));
    BOOST_TEST(number(world.repaired[0].ports[1]) == 2u);
    BOOST_TEST_REQUIRE(world.resumed_with.size() == 1u);
    BOOST_TEST(world.resumed_with[0].stage == 0);
    BOOST_TEST(world.resumed_with[0].sequences.at(0) == 2u);  // of this epoch
  });

  world.on_exit(RankId(0), "killed by SIGKILL (Killed)");
  repaired(2);
  world.locked([&] {
    BOOST_TEST(world.spawned[0] == 2);
    BOOST_TEST(world.spawned[1] == 2);  // the standby now
    BOOST_TEST((world.repaired[1].first_since == PlanEpoch(3)));
    BOOST_TEST((world.repaired[1].first_process == RankId(0)));
    BOOST_TEST(world.repaired[1].ports[0] != world.ports[0]);
    BOOST_TEST_REQUIRE(world.resumed_with.size() == 1u);
    BOOST_TEST(world.resumed_with[0].stage == 1);
  });
}

BOOST_AUTO_TEST_CASE(says_at_once_which_lane_is_away_and_why_and_when_it_serves_again) {
  world.wait([&] { return world.news.size() == 1; });
  world.on_exit(RankId(1), "killed by SIGKILL (Killed)");
  repaired(1);
  world.wait([&] { return world.news.size() == 3; });
  world.locked([&] {
    BOOST_TEST((world.news[0] == graph::LaneNews{.epoch = PlanEpoch(1), .serves = true}));
    BOOST_TEST((world.news[1].epoch == PlanEpoch(2)));
    BOOST_TEST(!world.news[1].serves);
    BOOST_TEST(world.news[1].why == "stage 'back' died: killed by SIGKILL (Killed)");
    BOOST_TEST((world.news[2] == graph::LaneNews{.epoch = PlanEpoch(2), .serves = true}));
  });
}

BOOST_AUTO_TEST_CASE(watches_again_after_a_link_has_broken) {
  for (size_t round = 1; round <= 2; ++round) {
    const auto broken = world.locked([&] { return std::exchange(world.watches[0], nullptr); });
    BOOST_TEST_REQUIRE((broken != nullptr));
    broken(kLinkBroke);
    repaired(round);
    world.wait([&] { return world.watches[0] != nullptr; });
  }
  world.locked([&] {
    BOOST_TEST((world.fences[0] == PlanEpoch(3)));
    BOOST_TEST((world.fences[1] == PlanEpoch(3)));
    BOOST_TEST(!world.fences.contains(2));
    BOOST_TEST(world.resumed_with.size() == 2u);
  });
}

BOOST_AUTO_TEST_CASE(who_has_failed_is_killed_and_replaced) {
  const auto failed = world.locked([&] { return world.watches[0]; });
  failed(Error{ErrorCode::internal, "bad frame"});
  repaired(1);
  world.locked([&] {
    BOOST_TEST(world.spawned[0] == 2);
    BOOST_TEST((world.repaired[0].first_since == PlanEpoch(2)));
  });
}

BOOST_AUTO_TEST_CASE(who_hangs_is_killed_and_replaced) {
  size_t times = 0;
  for (const bool mute : {false, true}) {
    const TimePoint began = steady_clock().now();
    world.locked([&] { (mute ? world.mute : world.stuck).insert(0); });
    repaired(++times);
    BOOST_TEST((steady_clock().now() - began < std::chrono::milliseconds(1200)));
    world.wait([&] { return world.notices.size() >= 2; });
    const auto notices = world.locked([&] { return std::exchange(world.notices, {}); });
    BOOST_TEST_REQUIRE(notices.size() == 2u);
    const char* const how = mute ? "it has not answered" : "its computing thread has done nothing";
    BOOST_TEST(notices[0].find(fmt::format("stage 'front': it hangs: {} for 0.", how)) == 0u,
               notices[0]);
    BOOST_TEST(notices[1].find("lane 0 serves again after ") == 0u, notices[1]);
  }
  world.locked([&] { BOOST_TEST(world.spawned[0] == 3); });
}

BOOST_AUTO_TEST_CASE(a_link_over_which_nothing_comes_is_made_anew_and_nobody_is_killed) {
  const TimePoint began = steady_clock().now();
  world.locked([&] {
    world.links[0] = {{.edge = 0, .incarnation = 1, .is_sender = true, .spoken = 9, .heard = 6}};
    world.links[1] = {{.edge = 0, .incarnation = 1, .spoken = 6, .heard = 6}};
  });
  world.wait([&] { return world.notices.size() >= 2; });
  BOOST_TEST((steady_clock().now() - began < std::chrono::milliseconds(1200)));
  world.locked([&] {
    world.links.clear();
    BOOST_TEST(
        world.notices[0].find("link 0 is silent: of what was sent, 3 frames have not come") !=
            std::string::npos,
        world.notices[0]);
    BOOST_TEST((world.fences[0] == PlanEpoch(2)));
    BOOST_TEST((world.fences[1] == PlanEpoch(2)));
    BOOST_TEST(world.spawned[0] == 1);
    BOOST_TEST(world.spawned[1] == 1);
  });
}

BOOST_AUTO_TEST_CASE(what_an_earlier_process_of_a_number_answers_is_void) {
  world.locked([&] { world.hold_hellos = true; });
  world.on_exit(RankId(0), "killed");
  world.wait([&] { return world.held_hellos.contains(0); });
  const auto late = world.locked([&] {
    world.hold_hellos = false;
    return world.held_hellos[0];
  });
  world.on_exit(RankId(0), "killed again");
  repaired(1);
  late(Error{ErrorCode::internal, "too late"});
  late(Error{ErrorCode::disconnected, "too late"});
  world.on_exit(RankId(1), "killed");
  repaired(2);
  world.locked([&] { BOOST_TEST(world.spawned[0] == 3); });
}

// Nobody is asked to do anything, and a death is mended as if it had been there all the time.
BOOST_AUTO_TEST_CASE(another_coordinator_takes_over) {
  lose_coordinator();
  begin();
  repaired(1);  // the lane is told again, as it was
  world.wait([&] { return world.watches.contains(0) && world.watches.contains(1); });
  world.locked([&] {
    BOOST_TEST((world.repaired[0].first_since == PlanEpoch(1)));
    BOOST_TEST(number(world.repaired[0].ports[1]) == 1u);
    BOOST_TEST((world.spawned == std::map<uint32_t, int>{{0, 1}, {1, 1}, {2, 1}}));
    BOOST_TEST(world.connects.empty());
    BOOST_TEST(world.fences.empty());
  });
  world.on_exit(RankId(0), "killed by SIGKILL (Killed)");
  repaired(2);
  lose_coordinator();
  begin();
  repaired(3);
  world.locked([&] {
    BOOST_TEST(world.spawned[0] == 2);
    BOOST_TEST((world.repaired[2].first_since == PlanEpoch(2)));
    BOOST_TEST(world.connects.empty());
  });
}

BOOST_AUTO_TEST_CASE(what_cannot_be_written_down_is_not_done) {
  world.locked([&] { world.is_full = true; });
  world.on_exit(RankId(1), "killed by SIGKILL (Killed)");
  world.wait([&] { return world.stopped; });
  world.locked([&] {
    BOOST_TEST_REQUIRE(world.failure.has_value());
    BOOST_TEST((world.failure->code == ErrorCode::no_room));
    BOOST_TEST(world.failure->message == "state.db: the disk is full");
    BOOST_TEST(world.fences.empty());
    BOOST_TEST(world.spawned[1] == 1);
  });
}

BOOST_AUTO_TEST_CASE(too_many_ends_fail_the_deployment_and_say_so) {
  for (size_t i = 1; i <= 5; ++i) {
    world.on_exit(RankId(0), "killed by SIGKILL (Killed)");
    repaired(i);
  }
  world.on_exit(RankId(0), "killed by SIGKILL (Killed)");
  world.wait([&] { return world.stopped; });
  world.locked([&] {
    BOOST_TEST_REQUIRE(world.failure.has_value());
    BOOST_TEST(world.failure->message ==
               "stage 'front' died: killed by SIGKILL (Killed); that is the 6th end of a rank "
               "within 60 s (failover.restarts: 5)");
  });
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::actors
