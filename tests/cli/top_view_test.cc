// What `chainpump top` makes of two reports.
#include "cli/top_view.h"

#include <boost/test/unit_test.hpp>

namespace chainpump::cli {
namespace {

using namespace std::chrono_literals;

actors::StageReport report(Duration busy, Duration transfer, Duration input, Duration credit,
                           Duration idle) {
  return {.layer_end = 4,
          .pid = 77,
          .busy = busy,
          .transfer = transfer,
          .bubble_input = input,
          .bubble_credit = credit,
          .idle = idle};
}

}  // namespace

BOOST_AUTO_TEST_CASE(shares_add_up) {
  const auto before = report(10ms, 10ms, 10ms, 10ms, 10ms);
  const auto now = report(60ms, 20ms, 30ms, 25ms, 15ms);  // 50, 10, 20, 15, 5 of 100
  const StageShares shares = shares_between(before, now);
  const auto tolerance = boost::test_tools::tolerance(1e-9);
  BOOST_TEST(shares.busy == 0.5, tolerance);
  BOOST_TEST(shares.transfer == 0.1, tolerance);
  BOOST_TEST(shares.wait_input == 0.2, tolerance);
  BOOST_TEST(shares.wait_credit == 0.15, tolerance);
  BOOST_TEST(shares.idle == 0.05, tolerance);
  BOOST_TEST(shares_bar(shares, 20) == "##########>>....!!! ");
  for (const auto& [a, b] : {std::pair(now, now), std::pair(now, before)})
    BOOST_TEST(shares_between(a, b).idle == 1);
}

BOOST_AUTO_TEST_CASE(bars_are_as_wide_as_asked_for) {
  BOOST_TEST(shares_bar({}, 5) == "     ");
  BOOST_TEST(shares_bar({.busy = 1, .idle = 0}, 5) == "#####");
  BOOST_TEST(shares_bar({.busy = 7}, 5) == "#####");
  BOOST_TEST(shares_bar({.busy = -1}, 5) == "     ");
  BOOST_TEST(shares_bar({.busy = 0.34, .transfer = 0.33, .wait_credit = 0.33, .idle = 0}, 3) ==
             "#>!");
  BOOST_TEST(shares_bar({.busy = 0.5}, 0).empty());
}

BOOST_AUTO_TEST_CASE(the_whole_picture) {
  gateway::DeploymentInfo deployment;
  deployment.graph_name = "demo";
  deployment.build = "1+abc";
  deployment.plan.max_sequences = 4;
  deployment.plan.kv.num_blocks = 10;
  deployment.plan.kv.block_tokens = 32;
  gateway::StatusReport before, now;
  now.phase = gateway::Phase::ready;
  now.message = "every stage is ready";
  now.num_requests = 6;
  before.num_tokens = 100;
  now.num_tokens = 300;
  now.num_completed = 5;
  const std::string loading = top_view(deployment, before, now, 2s);
  BOOST_TEST(loading.find("stage") == loading.rfind("every stage") + 6);  // no table of them yet
  before.stages.stages = {report(0ms, 0ms, 0ms, 0ms, 0ms)};
  now.stages.stages = {report(50ms, 10ms, 20ms, 15ms, 5ms), report(1ms, 0ms, 0ms, 0ms, 0ms)};
  now.stages.stages[0].tokens = 40;
  now.stages.lanes = {
      {.num_running = 4, .num_waiting = 2, .num_kv_blocks = 10, .num_free_kv_blocks = 5}};
  now.readiness.lanes = {{.lane = graph::LaneId(0), .slow = "stage 'x': its steps"}};
  const std::string view = top_view(deployment, before, now, 2s);
  for (const char* words :
       {"demo: ready (every stage is ready)", "6 live: 4 sequences run, 2 wait (4 run at once)",
        "2.5 completed/s", "tokens    100.0/s", "50.0% of 10 blocks", "0-3", "77", "50.0%", "10.0%",
        "15.0%", "20.0", "slow      lane 0: stage 'x': its steps"})
    BOOST_TEST(view.find(words) != std::string::npos, words << "\n" << view);
  BOOST_TEST(view.find("\nlane 0") == std::string::npos);  // there is but one
  now.stages.lanes.push_back(
      {.lane = graph::LaneId(1), .num_running = 1, .num_kv_blocks = 10, .num_free_kv_blocks = 9});
  const std::string lanes = top_view(deployment, before, now, 2s);
  for (const char* words :
       {"5 sequences run, 2 wait", "30.0% of 20 blocks", "\nlane 0       4 run    2 wait    KV [##",
        "\nlane 1       1 run    0 wait", "10.0% of 10 blocks"})
    BOOST_TEST(lanes.find(words) != std::string::npos, words << "\n" << lanes);
  BOOST_TEST(!top_view({}, {}, {}, 0s).empty());
}

}  // namespace chainpump::cli
