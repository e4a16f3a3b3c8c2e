// What `chainpump trace` writes.
#include "cli/trace_file.h"

#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>

namespace chainpump::cli {
namespace {

using nlohmann::json;

StepEvent step(uint64_t microbatch, int64_t us, bool waits_for_credit) {
  const auto at = [us](int64_t more) {
    return TimePoint{std::chrono::microseconds(1'000'000 + us + more)};
  };
  return {.microbatch = MicrobatchId(microbatch),
          .num_tokens = 7,
          .received = at(0),
          .credit_from = at(1),
          .credit_until = at(waits_for_credit ? 3 : 1),
          .compute_from = at(3),
          .compute_until = at(8),
          .sent = at(9)};
}

std::vector<json> of(const json& trace, const char* key, const json& value) {
  std::vector<json> found;
  for (const json& event : trace["traceEvents"])
    if (event.value(key, json()) == value) found.push_back(event);
  return found;
}

}  // namespace

BOOST_AUTO_TEST_CASE(steps_become_spans_and_arrows) {
  const std::vector<StageSteps> stages = {
      {.name = "stage \"0\"", .events = {step(5, 0, true), step(6, 10, false)}},
      {.name = "stage 1", .stage = StageIndex(1), .events = {step(5, 20, false)}}};
  const json trace = json::parse(trace_json(stages, {std::chrono::seconds(1)}));
  const auto names = of(trace, "name", "process_name");
  BOOST_REQUIRE_EQUAL(names.size(), 2u);
  BOOST_TEST(names[0]["args"]["name"] == "stage \"0\"");
  const auto computed = of(trace, "cat", "compute");
  BOOST_REQUIRE_EQUAL(computed.size(), 3u);
  BOOST_TEST(computed[1]["name"] == "compute 6");
  BOOST_TEST(computed[1]["ts"] == 13.0);
  BOOST_TEST(computed[1]["dur"] == 5.0);
  BOOST_TEST(computed[1]["args"]["tokens"] == 7);
  BOOST_TEST(computed[1]["args"]["queued_us"] == 3.0);
  BOOST_TEST(computed[2]["pid"] == 1);
  const auto credit = of(trace, "cat", "wait for credit");
  BOOST_REQUIRE_EQUAL(credit.size(), 1u);
  BOOST_TEST(credit[0]["ts"] == 1.0);
  BOOST_TEST(credit[0]["dur"] == 2.0);
  BOOST_TEST(of(trace, "cat", "send").size() == 3u);
  const auto begun = of(trace, "ph", "s");
  const auto ended = of(trace, "ph", "f");
  BOOST_REQUIRE_EQUAL(begun.size(), 2u);
  BOOST_REQUIRE_EQUAL(ended.size(), 1u);
  BOOST_TEST(begun[0]["id"] == ended[0]["id"]);
  BOOST_TEST(begun[1]["id"] != ended[0]["id"]);
  BOOST_TEST(ended[0]["ts"] == 23.0);
}

BOOST_AUTO_TEST_CASE(a_service_that_did_nothing_has_a_trace) {
  for (const std::vector<StageSteps>& stages :
       {std::vector<StageSteps>{}, std::vector<StageSteps>{{.name = "a", .events = {}}}})
    BOOST_TEST(json::parse(trace_json(stages, {})).contains("traceEvents"));
}

}  // namespace chainpump::cli
