// Whether a service is ready, as its clients are told over the RPC.
#include "tests/gateway/rpc/fixture.h"

namespace chainpump::gateway::rpc {
namespace {

using namespace std::chrono_literals;
using fakes::why;

}  // namespace

BOOST_AUTO_TEST_CASE(readiness_arrives_with_the_reason) {
  TestServer server;
  const auto client = server.connect();
  BOOST_TEST(client->wait_ready(kPatience).ok());
  auto readiness = client->readiness(kPatience);
  BOOST_TEST_REQUIRE(readiness.ok(), why(readiness));
  BOOST_TEST(readiness->ready);
  server.engine.set_health({.ready = false,
                            .why = "lane 1: stage 'x' died",
                            .lanes = {{.lane = graph::LaneId(0),
                                       .state = graph::LaneHealth::State::serving,
                                       .ready = false,
                                       .why = "no token has crossed its stages for 11.0 s",
                                       .crossed_ago = 11s,
                                       .slow = "stage 'y' is"},
                                      {.lane = graph::LaneId(1),
                                       .state = graph::LaneHealth::State::away,
                                       .ready = false,
                                       .why = "stage 'x' died",
                                       .away_for = 3s}},
                            .coordinator_away = "it died"});
  readiness = client->readiness(kPatience);
  const auto status = client->status(kPatience);
  BOOST_TEST_REQUIRE((readiness.ok() && status.ok()));
  for (const Readiness& told : {*readiness, status->readiness}) {
    BOOST_TEST(!told.ready);
    BOOST_TEST(told.why == "lane 1: stage 'x' died");
    BOOST_TEST(told.coordinator_away == "it died");
    BOOST_TEST_REQUIRE(told.lanes.size() == 2u);
    BOOST_TEST((told.lanes[0].state == graph::LaneHealth::State::serving));
    BOOST_TEST((told.lanes[0].crossed_ago == 11s));
    BOOST_TEST(told.lanes[0].slow == "stage 'y' is");
    BOOST_TEST(!told.lanes[0].away_for.has_value());
    BOOST_TEST((told.lanes[1].lane == graph::LaneId(1)));
    BOOST_TEST((told.lanes[1].state == graph::LaneHealth::State::away));
    BOOST_TEST((told.lanes[1].away_for == 3s));
    BOOST_TEST(told.lanes[1].why == "stage 'x' died");
  }
  BOOST_TEST(status->stages_missing == "lane 1 is away");
}

}  // namespace chainpump::gateway::rpc
