// The load of `chainpump bench serve` and its figures: what a seed gives, and the arithmetic.
#include "cli/load.h"

#include <boost/test/unit_test.hpp>
#include <cmath>

#include "cli/serve_figures.h"
#include "tests/fakes/why.h"

namespace chainpump::cli {
namespace {

using namespace std::chrono_literals;

std::vector<LengthClass> mix(const char* text) {
  const auto classes = parse_mix(text);
  BOOST_TEST_REQUIRE(classes.ok(), fakes::why(classes));
  return *classes;
}

ServedRequest served(Duration at, std::vector<Duration> tokens, Duration ended) {
  return {.at = at, .sent = at, .ended = ended, .tokens = std::move(tokens), .prompt_tokens = 10};
}

}  // namespace

BOOST_AUTO_TEST_CASE(mixes) {
  const auto classes = mix("7:16-128/32,0.5:1024/8-64");
  BOOST_REQUIRE_EQUAL(classes.size(), 2u);
  BOOST_TEST(classes[0].weight == 7);
  BOOST_TEST(classes[0].prompt_tokens.min == 16);
  BOOST_TEST(classes[0].prompt_tokens.max == 128);
  BOOST_TEST(classes[0].output_tokens.min == 32);
  BOOST_TEST(classes[0].output_tokens.max == 32);
  BOOST_TEST(classes[1].weight == 0.5);
  for (const char* name : {"short", "chat", "long", "mixed"}) BOOST_TEST(!mix(name).empty());
  for (const char* text :
       {"", ",", "1:1/1,", "x", "1:1", "1/1:1", "0:1/1", "-1:1/1", "nan:1/1", "inf:1/1", "1:0/1",
        "1:2-1/1", "1:1/0", "1:1-/1", "1:-1/1", "1:1/1048577", "1:1/1x", "1:1 /1", "1:1/1 "})
    BOOST_TEST(!parse_mix(text).ok(), text);
}

BOOST_AUTO_TEST_CASE(a_seed_is_a_load) {
  LoadParams params{
      .requests_per_second = 50, .num_requests = 20'000, .mix = mix("3:4-7/2,1:9/5-6"), .seed = 7};
  const auto load = make_arrivals(params);
  BOOST_TEST((make_arrivals(params) == load));
  params.num_requests = 100;
  const auto begin = make_arrivals(params);
  BOOST_TEST(std::equal(begin.begin(), begin.end(), load.begin()));
  params.seed = 8;
  BOOST_TEST((make_arrivals(params) != begin));

  double sum_squares = 0;
  size_t num_first = 0;
  std::vector<size_t> lengths(8);
  Duration last{0};
  for (const Arrival& arrival : load) {
    BOOST_TEST_REQUIRE((arrival.at >= last));
    sum_squares += std::pow(to_seconds(arrival.at - last) * 50, 2);
    last = arrival.at;
    if (arrival.prompt_tokens == 9) {
      BOOST_TEST_REQUIRE((arrival.output_tokens == 5 || arrival.output_tokens == 6));
      continue;
    }
    BOOST_TEST_REQUIRE((arrival.prompt_tokens >= 4 && arrival.prompt_tokens <= 7));
    BOOST_TEST_REQUIRE(arrival.output_tokens == 2);
    ++num_first;
    ++lengths[static_cast<size_t>(arrival.prompt_tokens)];
  }
  // Of an exponential distribution: the mean, and the mean square, which is twice its square.
  BOOST_TEST(to_seconds(last) == 400, boost::test_tools::tolerance(0.03));
  BOOST_TEST(sum_squares / 20'000 == 2, boost::test_tools::tolerance(0.06));
  BOOST_TEST(static_cast<double>(num_first) == 15'000, boost::test_tools::tolerance(0.03));
  for (size_t length = 4; length <= 7; ++length)
    BOOST_TEST(static_cast<double>(lengths[length]) == 3'750, boost::test_tools::tolerance(0.06));
}

BOOST_AUTO_TEST_CASE(prompts_are_of_the_vocabulary) {
  const auto prompt = make_prompt(7, 3, 5000, 10);
  BOOST_TEST((make_prompt(7, 3, 5000, 10) == prompt));
  BOOST_TEST((make_prompt(7, 4, 5000, 10) != prompt));
  std::vector<int> seen(10);
  for (const TokenId token : prompt) {
    BOOST_TEST_REQUIRE((token >= 0 && token < 10));
    ++seen[static_cast<size_t>(token)];
  }
  for (const int count : seen) BOOST_TEST((count > 400 && count < 600));
}

BOOST_AUTO_TEST_CASE(percentiles) {
  BOOST_TEST(percentile({}, 0.5) == 0);
  BOOST_TEST(percentile({7}, 0) == 7);
  BOOST_TEST(percentile({7}, 1) == 7);
  BOOST_TEST(percentile({4, 1, 3, 2}, 0.5) == 2);
  BOOST_TEST(percentile({4, 1, 3, 2}, 0.51) == 3);
  std::vector<double> many;
  for (int i = 100; i > 0; --i) many.push_back(i);
  BOOST_TEST(percentile(many, 0.99) == 99);
  const Spread spread = spread_of(many);
  BOOST_TEST(spread.mean == 50.5);
  BOOST_TEST(spread.p90 == 90);
  BOOST_TEST(spread.max == 100);
}

BOOST_AUTO_TEST_CASE(accounts_become_figures) {
  std::vector<ServedRequest> requests = {
      served(0ms, {100ms, 110ms, 110ms, 140ms}, 150ms),  // 100 to the first, 13.3 per token
      served(50ms, {350ms, 352ms}, 360ms),               // 300 to the first, 2 per token
      served(60ms, {70ms}, 80ms),                        // one token
      served(70ms, {}, 75ms),
      served(80ms, {90ms}, 2000ms),
  };
  requests[3].error = ErrorCode::overloaded;
  requests[3].was_refused = true;
  requests[4].error = ErrorCode::disconnected;
  requests[2].sent = 65ms;
  const ServeFigures figures = figures_of(requests, {.ttft_ms = 200, .tpot_ms = 10});
  BOOST_TEST(figures.num_requests == 5u);
  BOOST_TEST(figures.num_completed == 3u);
  BOOST_TEST(figures.num_refused == 1u);
  BOOST_TEST(figures.failures.at("disconnected") == 1u);
  BOOST_TEST((figures.duration == 2s));
  BOOST_TEST(figures.prompt_tokens == 30);
  BOOST_TEST(figures.output_tokens == 7);
  BOOST_TEST(figures.ttft_ms.p50 == 100);
  BOOST_TEST(figures.ttft_ms.max == 300);
  BOOST_TEST(figures.tpot_ms.max == 40.0 / 3, boost::test_tools::tolerance(1e-9));
  BOOST_TEST(figures.inter_token_ms.p50 == 2);  // of 0, 2, 10, 30
  BOOST_TEST(figures.inter_token_ms.max == 30);
  BOOST_TEST(figures.end_to_end_ms.max == 310);
  BOOST_TEST(figures.refusal_ms.max == 5);
  BOOST_TEST(figures.lateness_ms.max == 5);
  BOOST_TEST(figures.num_good == 1u);  // the one of one token
  BOOST_TEST(figures_of(requests, {.ttft_ms = 200, .tpot_ms = {}}).num_good == 2u);
  BOOST_TEST(figures_of(requests, {}).num_good == 3u);
  const auto json = figures_json(figures, {.ttft_ms = 200, .tpot_ms = {}});
  BOOST_TEST(json["slo"]["good_share"] == 0.2);
  BOOST_TEST(json["slo"]["goodput_requests_per_second"] == 0.5);
  BOOST_TEST(json["slo"]["tpot_ms"].is_null());
  BOOST_TEST(json["output_tokens_per_second"] == 3.5);
  BOOST_TEST(figures_json(figures_of({}, {}), {})["duration_s"] == 0.0);
  BOOST_TEST(
      figures_table(figures, {.ttft_ms = 200, .tpot_ms = 10})
          .find("goodput 0.50 requests/s (1 good, first token within 200 ms, 10 ms per token)") !=
      std::string::npos);
}

}  // namespace chainpump::cli
