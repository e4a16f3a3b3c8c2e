// Lanes side by side in one runtime: what is asked of them, and of whom.
#include "actors/lanes.h"

#include "tests/actors/local_runtime.h"

namespace chainpump::actors {

using fakes::why;

namespace {

using Answers = std::vector<std::vector<TokenId>>;

std::vector<SequenceRequest> of_all_kinds(int32_t count) {
  std::vector<SequenceRequest> requests;
  for (int32_t i = 0; i < count; ++i)
    requests.push_back(request(5 + 7 * i, 10 + i, i % 2 == 0 ? 0.0f : 0.9f));
  return requests;
}

/// What each gets by itself.
Answers alone(const graph::Plan& plan, const std::vector<SequenceRequest>& requests) {
  const auto runtime = start_ready(plan);
  Answers answers;
  for (const SequenceRequest& each : requests) answers.push_back(generate(*runtime, each));
  return answers;
}

/// All at once.
void check_together(Runtime& runtime, const std::vector<SequenceRequest>& requests,
                    const Answers& expected) {
  std::vector<Listener> listeners(requests.size());
  for (size_t i = 0; i < requests.size(); ++i)
    runtime.submit(requests[i], kPatience, listeners[i].callbacks());
  for (size_t i = 0; i < requests.size(); ++i) {
    const Result<Ok> end = listeners[i].wait_end();
    BOOST_REQUIRE_MESSAGE(end.ok(), why(end));
    BOOST_TEST(listeners[i].tokens == expected[i]);
  }
}

}  // namespace

// The one law: what a lane computes is no part of the request. Many at once, so that both lanes
// have several, of all kinds.
BOOST_AUTO_TEST_CASE(tokens_do_not_depend_on_the_lane) {
  const Model model;
  graph::Plan plan = plan_for(model.path(), 2);
  const std::vector<SequenceRequest> requests = of_all_kinds(12);
  const auto expected = alone(plan, requests);
  for (graph::StagePlan& stage : plan.stages) stage.devices.resize(2);
  const auto runtime = start_ready(plan);
  check_together(*runtime, requests, expected);
  const auto report = runtime->report(kPatience);
  BOOST_REQUIRE_MESSAGE(report.ok(), why(report));
  BOOST_REQUIRE_EQUAL(report->stages.size(), 4u);
  BOOST_REQUIRE_EQUAL(report->links.size(), 4u);
  for (uint32_t i = 0; i < 4; ++i) {
    BOOST_TEST(report->stages[i].lanes.front().value == i / 2);
    BOOST_TEST(static_cast<uint32_t>(report->stages[i].stage.value) == i % 2);
    BOOST_TEST(report->stages[i].tokens > 0u);
    BOOST_TEST(report->links[i].lane.value == i / 2);
    BOOST_TEST(report->links[i].edge.value == i % 2);
    BOOST_TEST(report->links[i].frames > 0u);
  }
}

// Four lanes over seven ranks: the first serves all of them, each of the middle's two.
BOOST_AUTO_TEST_CASE(tokens_do_not_depend_on_which_ranks_lanes_share) {
  const Model model;
  graph::Plan plan = plan_for(model.path(), 3);
  const std::vector<SequenceRequest> requests = of_all_kinds(16);
  const auto expected = alone(plan, requests);
  for (size_t i = 0; i < 3; ++i) plan.stages[i].devices.resize(size_t{1} << i);
  const auto runtime = start_ready(plan);
  check_together(*runtime, requests, expected);
  const auto report = runtime->report(kPatience);
  BOOST_REQUIRE_MESSAGE(report.ok(), why(report));
  BOOST_REQUIRE_EQUAL(report->stages.size(), 7u);
  BOOST_REQUIRE_EQUAL(report->links.size(), 12u);
  BOOST_TEST(report->stages[0].lanes.size() == 4u);
  BOOST_TEST(report->stages[1].lanes.size() == 2u);
  BOOST_TEST(report->stages[2].lanes.size() == 1u);
  for (const StageReport& stage : report->stages) BOOST_TEST(stage.tokens > 0u);
  for (const LinkReport& link : report->links) BOOST_TEST(link.frames > 0u);
}

BOOST_AUTO_TEST_CASE(a_request_is_cancelled_on_its_own_lane) {
  const Model model;
  graph::Plan plan = plan_for(model.path(), 1);
  for (graph::StagePlan& stage : plan.stages) stage.devices.resize(2);
  const auto runtime = start_ready(plan);
  Listener a, b;
  const RequestId first = runtime->submit(request(10, 3000), kPatience, a.callbacks());
  const RequestId second = runtime->submit(request(10, 3000), kPatience, b.callbacks());
  BOOST_REQUIRE(a.wait_tokens(2));
  BOOST_REQUIRE(b.wait_tokens(2));
  const auto report = runtime->report(kPatience);
  BOOST_REQUIRE_MESSAGE(report.ok(), why(report));
  for (const StageReport& stage : report->stages) BOOST_TEST(stage.tokens > 0u);  // one on each
  runtime->cancel(second);
  BOOST_TEST((b.wait_end().error().code == ErrorCode::cancelled));
  runtime->cancel(first);
  BOOST_TEST((a.wait_end().error().code == ErrorCode::cancelled));
}

}  // namespace chainpump::actors
