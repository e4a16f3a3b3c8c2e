#include "graph/sampling_params.h"

#include <boost/test/unit_test.hpp>
#include <limits>

namespace chainpump::graph {

BOOST_AUTO_TEST_SUITE(sampling_params)

BOOST_AUTO_TEST_CASE(each_bound_is_named_and_holds_at_its_edge) {
  static constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  struct Case {
    const char* named;  // empty: accepted
    void (*change)(SamplingParams&);
  };
  const Case cases[] = {
      {"", [](SamplingParams&) {}},
      {"", [](SamplingParams& p) { p.temperature = 100; }},
      {"temperature", [](SamplingParams& p) { p.temperature = 100.1f; }},
      {"temperature", [](SamplingParams& p) { p.temperature = -0.1f; }},
      {"temperature", [](SamplingParams& p) { p.temperature = kNan; }},
      {"", [](SamplingParams& p) { p.top_p = 1e-6f; }},
      {"top_p", [](SamplingParams& p) { p.top_p = 0; }},
      {"top_p", [](SamplingParams& p) { p.top_p = 1.001f; }},
      {"top_p", [](SamplingParams& p) { p.top_p = kNan; }},
      {"", [](SamplingParams& p) { p.min_p = 0.999f; }},
      {"min_p", [](SamplingParams& p) { p.min_p = 1; }},
      {"min_p", [](SamplingParams& p) { p.min_p = -0.01f; }},
      {"min_p", [](SamplingParams& p) { p.min_p = kNan; }},
      {"", [](SamplingParams& p) { p.top_k = 1'000'000; }},
      {"top_k", [](SamplingParams& p) { p.top_k = -1; }},
      {"", [](SamplingParams& p) { p.repetition_penalty = 100; }},
      {"repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = 0; }},
      {"repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = kNan; }},
      {"", [](SamplingParams& p) { p.presence_penalty = -2; }},
      {"presence_penalty", [](SamplingParams& p) { p.presence_penalty = 2.1f; }},
      {"frequency_penalty", [](SamplingParams& p) { p.frequency_penalty = kNan; }},
      {"max_new_tokens", [](SamplingParams& p) { p.max_new_tokens = 0; }},
      {"", [](SamplingParams& p) { p.num_top_logprobs = 20; }},
      {"num_top_logprobs", [](SamplingParams& p) { p.num_top_logprobs = 21; }},
      {"num_top_logprobs", [](SamplingParams& p) { p.num_top_logprobs = -2; }},
      {"",
       [](SamplingParams& p) {
         p.logit_bias = {{9, 100.0f}, {0, -100.0f}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{10, 0.0f}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{-1, 0.0f}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{1, 101.0f}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{1, kNan}};
       }},
      {"token 1 twice",
       [](SamplingParams& p) {
         p.logit_bias = {{1, 1.0f}, {2, 1.0f}, {1, 2.0f}};
       }},
      {"logit_bias", [](SamplingParams& p) { p.logit_bias.resize(1025); }},
      {"", [](SamplingParams& p) { p.stop.assign(64, std::string(1024, 'x')); }},
      {"stop string",
       [](SamplingParams& p) {
         p.stop = {"a", ""};
       }},
      {"stop string", [](SamplingParams& p) { p.stop = {std::string(1025, 'x')}; }},
      {"stop strings", [](SamplingParams& p) { p.stop.assign(65, "x"); }},
      {"",
       [](SamplingParams& p) {
         p.stop_token_ids = {0, 9};
       }},
      {"stop_token_ids", [](SamplingParams& p) { p.stop_token_ids = {10}; }},
      {"stop_token_ids", [](SamplingParams& p) { p.stop_token_ids.assign(1025, 1); }},
  };
  for (const Case& c : cases) {
    SamplingParams params;
    c.change(params);
    const Status status = validate(params, 10);
    const std::string message = status.ok() ? "" : status.error().message;
    BOOST_TEST(status.ok() == (*c.named == '\0'), c.named << " / " << message);
    BOOST_TEST(message.find(c.named) != std::string::npos, c.named << " / " << message);
    if (!status.ok()) BOOST_TEST((status.error().code == ErrorCode::invalid_argument));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
