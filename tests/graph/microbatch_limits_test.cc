// What a decoder refuses: each field at its limit and one past it, and what makes no sense.
#include <boost/test/unit_test.hpp>
#include <limits>

#include "tests/graph/microbatch_samples.h"

namespace chainpump::graph {
namespace {

std::string error_of(const Microbatch& m, const MicrobatchLimits& limits = kLimits) {
  const auto result = decode_microbatch(encoded(m), limits);
  if (result.ok()) return "";
  BOOST_TEST((result.error().code == ErrorCode::invalid_argument));
  return result.error().message;
}

std::string error_of(const StepResult& r) {
  const auto result = decode_step_result(encoded(r), kLimits);
  if (result.ok()) return "";
  BOOST_TEST((result.error().code == ErrorCode::invalid_argument));
  return result.error().message;
}

struct LimitCase {
  const char* field;
  void (*fill)(Microbatch&, int32_t excess);
};
const LimitCase kLimitCases[] = {
    {"released", [](Microbatch& m, int32_t x) { m.released.resize(static_cast<size_t>(8 + x)); }},
    {"copies", [](Microbatch& m, int32_t x) { m.copies.resize(static_cast<size_t>(8 + x)); }},
    {"copies",
     [](Microbatch& m, int32_t x) {
       m.copies = {{KvBlockId(31 + x), KvBlockId(0)}};
     }},
    {"copies",
     [](Microbatch& m, int32_t x) {
       m.copies = {{KvBlockId(0), KvBlockId(31 + x)}};
     }},
    {"copies",
     [](Microbatch& m, int32_t x) {
       m.copies = {{KvBlockId(0), KvBlockId(-x)}};
     }},
    {"slowest_ns", [](Microbatch& m, int32_t x) { m.slowest = Duration(-x); }},
    {"slowest_stage", [](Microbatch& m, int32_t x) { m.slowest_stage = StageIndex(-x); }},
    {"descriptors",
     [](Microbatch& m, int32_t x) { m.descriptors.resize(static_cast<size_t>(8 + x)); }},
    {"slices",
     [](Microbatch& m, int32_t x) {
       m.slices.assign(static_cast<size_t>(8 + x), {SequenceId(1), 0, {1}, 0, {}, false});
     }},
    {"tokens",
     [](Microbatch& m, int32_t x) { m.slices[0].tokens.assign(static_cast<size_t>(64 + x), 1); }},
    {"tokens",  // of all slices together
     [](Microbatch& m, int32_t x) {
       m.slices.assign(2, {SequenceId(1), 0, std::vector<TokenId>(32, 1), 0, {}, false});
       m.slices[1].tokens.resize(static_cast<size_t>(32 + x), 1);
     }},
    {"tokens",  // past the context
     [](Microbatch& m, int32_t x) {
       m.slices[0].first_position = 126;
       m.slices[0].tokens.assign(static_cast<size_t>(2 + x), 1);
     }},
    {"tokens", [](Microbatch& m, int32_t x) { m.slices[0].tokens = {999 + x}; }},
    {"tokens", [](Microbatch& m, int32_t x) { m.slices[0].tokens = {-x}; }},
    {"first_position", [](Microbatch& m, int32_t x) { m.slices[0].first_position = 127 + x; }},
    {"first_position", [](Microbatch& m, int32_t x) { m.slices[0].first_position = -x; }},
    {"table_offset", [](Microbatch& m, int32_t x) { m.slices[0].table_offset = 32 + x; }},
    {"table_offset", [](Microbatch& m, int32_t x) { m.slices[0].table_offset = -x; }},
    {"new_blocks", [](Microbatch& m, int32_t x) { m.slices[0].new_blocks = {KvBlockId(31 + x)}; }},
    {"new_blocks", [](Microbatch& m, int32_t x) { m.slices[0].new_blocks = {KvBlockId(-x)}; }},
    {"new_blocks",
     [](Microbatch& m, int32_t x) {
       m.slices[0].table_offset = 30;
       m.slices[0].new_blocks.resize(static_cast<size_t>(2 + x));
     }},
    {"prompt", [](Microbatch& m,
                  int32_t x) { m.descriptors[0].prompt.assign(static_cast<size_t>(128 + x), 1); }},
    {"generated",
     [](Microbatch& m, int32_t x) {
       m.descriptors[0].prompt.assign(100, 1);
       m.descriptors[0].generated.assign(static_cast<size_t>(28 + x), 1);
     }},
    {"score.first_position",
     [](Microbatch& m, int32_t x) { m.descriptors[0].score.first_position = 127 + x; }},
    {"score.full_path",
     [](Microbatch& m, int32_t x) {
       m.descriptors[0].score.full_path.assign(static_cast<size_t>(4096 + x), 'a');
     }},
};
}  // namespace

BOOST_AUTO_TEST_SUITE(microbatch_limits)

BOOST_AUTO_TEST_CASE(limits_hold_at_the_cap_and_not_above) {
  for (const LimitCase& c : kLimitCases) {
    for (const int32_t excess : {0, 1}) {
      Microbatch m;
      m.descriptors.resize(1);
      m.slices = {{SequenceId(1), 0, {1}, 0, {}, false}};
      c.fill(m, excess);
      const std::string error = error_of(m);
      BOOST_TEST(error.empty() == (excess == 0), c.field << ": " << error);
      if (excess == 1) BOOST_TEST(contains(error, c.field), c.field << ": " << error);
    }
  }
}

BOOST_AUTO_TEST_CASE(what_makes_no_sense_is_refused) {
  Microbatch m = sample_microbatch();
  m.slices[0].tokens.clear();
  BOOST_TEST(contains(error_of(m), "no tokens"));
  m = sample_microbatch();
  m.descriptors[0].sampling.temperature = std::numeric_limits<float>::quiet_NaN();
  BOOST_TEST(contains(error_of(m), "temperature"));
  m = sample_microbatch();
  m.descriptors[0].sampling.stop = {""};
  BOOST_TEST(contains(error_of(m), "stop string"));
  m = sample_microbatch();
  m.descriptors[0].score.full_path = std::string("a\0b", 3);
  BOOST_TEST(contains(error_of(m), "NUL"));
}

BOOST_AUTO_TEST_CASE(step_results_are_checked_too) {
  static constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  static constexpr float kInf = std::numeric_limits<float>::infinity();
  struct Case {
    const char* field;
    void (*spoil)(StepResult&);
  };
  const Case cases[] = {
      {"tokens", [](StepResult& r) { r.tokens.resize(9); }},
      {"scores", [](StepResult& r) { r.scores.resize(65); }},
      {"slowest_ns", [](StepResult& r) { r.slowest = Duration(-1); }},
      {"slowest_stage", [](StepResult& r) { r.slowest_stage = StageIndex(-1); }},
      {"position", [](StepResult& r) { r.tokens[0].position = 129; }},
      {"position", [](StepResult& r) { r.scores[0].position = 128; }},
      {"token", [](StepResult& r) { r.tokens[0].token = 1000; }},
      {"argmax", [](StepResult& r) { r.scores[0].argmax = -1; }},
      {"logprob", [](StepResult& r) { r.tokens[0].logprob = kNan; }},
      {"logprob", [](StepResult& r) { r.scores[0].logprob = kNan; }},
      {"logprob", [](StepResult& r) { r.scores[0].logprob = kInf; }},
      {"top_logprobs", [](StepResult& r) { r.tokens[0].top_logprobs.resize(21); }},
      {"top_logprobs", [](StepResult& r) { r.tokens[0].top_logprobs[0].second = kNan; }},
      {"finish", [](StepResult& r) { r.tokens[0].finish = static_cast<FinishReason>(5); }},
      {"text_bytes", [](StepResult& r) { r.tokens[0].text_bytes = -2; }},
  };
  for (const Case& c : cases) {
    StepResult r = sample_step_result();
    BOOST_TEST(error_of(r) == "");
    c.spoil(r);
    const std::string error = error_of(r);
    BOOST_TEST(contains(error, c.field), c.field << ": " << error);
  }
  StepResult impossible = sample_step_result();
  impossible.tokens[0].logprob = -kInf;
  BOOST_TEST(error_of(impossible) == "");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
