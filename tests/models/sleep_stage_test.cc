// Stages that sleep: their description, their time, their tokens, and what they refuse.
#include "models/sleep/sleep_stage.h"

#include <boost/test/unit_test.hpp>

#include "tests/fakes/why.h"

namespace chainpump::models {
namespace {

using namespace std::chrono_literals;

StageSpec spec_of(int32_t begin, int32_t end, bool is_first, bool is_last) {
  StageSpec spec;
  spec.layer_begin = begin;
  spec.layer_end = end;
  spec.has_embedding = is_first;
  spec.has_head = is_last;
  spec.num_kv_blocks = 16;
  spec.max_microbatch_tokens = 128;
  spec.max_sequences = 4;
  spec.context_tokens = 256;
  return spec;
}

std::unique_ptr<StageExecutor> load(const std::string& path, const StageSpec& spec) {
  auto stage = load_stage(path, spec, {});
  BOOST_REQUIRE_MESSAGE(stage.ok(), fakes::why(stage));
  return std::move(*stage);
}

graph::SequenceDescriptor described(uint64_t id) {
  graph::SequenceDescriptor descriptor;
  descriptor.id = SequenceId(id);
  descriptor.prompt = {1, 2, 3, 4, 5, 6, 7};
  descriptor.sampling.max_new_tokens = 5;
  descriptor.sampling.seed = 3;
  return descriptor;
}

graph::Microbatch whole_prompt(const graph::SequenceDescriptor& descriptor) {
  graph::Microbatch microbatch;
  microbatch.descriptors = {descriptor};
  microbatch.slices = {{.id = descriptor.id,
                        .tokens = descriptor.prompt,
                        .new_blocks = {KvBlockId(0)},
                        .sample = true}};
  const auto& generated = descriptor.generated;
  auto& tokens = microbatch.slices[0].tokens;
  tokens.insert(tokens.end(), generated.begin(), generated.end());
  return microbatch;
}

/// Two stages by hand: prompt in chunks, then decode to the end.
std::vector<TokenId> generate(const graph::SequenceDescriptor& descriptor, size_t chunk) {
  const auto first = load("sleep:0,0,0;0,0,0", spec_of(0, 1, true, false));
  const auto last = load("sleep:0,0,0;0,0,0", spec_of(1, 2, false, true));
  std::vector<TokenId> tokens = descriptor.prompt;
  tokens.insert(tokens.end(), descriptor.generated.begin(), descriptor.generated.end());
  std::vector<TokenId> made;
  graph::StepResult result;
  for (size_t at = 0;
       result.tokens.empty() || result.tokens[0].finish == graph::FinishReason::none;) {
    const size_t end = std::min(tokens.size(), at + chunk);
    graph::Microbatch microbatch;
    if (at == 0) microbatch.descriptors = {descriptor};
    microbatch.slices = {{.id = descriptor.id,
                          .first_position = static_cast<int32_t>(at),
                          .tokens = {tokens.begin() + static_cast<ptrdiff_t>(at),
                                     tokens.begin() + static_cast<ptrdiff_t>(end)},
                          .table_offset = at == 0 ? 0 : 1,
                          .sample = end == tokens.size()}};
    if (at == 0) microbatch.slices[0].new_blocks = {KvBlockId(3)};
    std::vector<float> rows((end - at) * kSleepHidden);
    result = {};
    BOOST_REQUIRE(first->run(microbatch, {}, rows, result).ok());
    const Status ran = last->run(microbatch, rows, {}, result);
    BOOST_REQUIRE_MESSAGE(ran.ok(), fakes::why(ran));
    at = end;
    for (const graph::TokenResult& token : result.tokens) {
      made.push_back(token.token);
      tokens.push_back(token.token);
    }
  }
  return made;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(sleep_stage)

BOOST_AUTO_TEST_CASE(descriptions_are_parsed_and_refused) {
  const std::vector<SleepLayer> layers = {{2e-3, 0, 0}, {3e-4, 8e-6, 2.625e-10}};
  const auto back = parse_sleep_model(sleep_model_name(layers));
  BOOST_REQUIRE(back.ok());
  BOOST_TEST((*back == layers));
  BOOST_TEST(is_sleep_model("sleep:"));
  BOOST_TEST(!is_sleep_model("/models/sleep:1,2,3"));
  std::string many = "sleep:0,0,0";
  for (int i = 0; i < 1024; ++i) many += ";0,0,0";
  for (const std::string& bad :
       {std::string("sleep:"), std::string("sleep:1"), std::string("sleep:1,2"),
        std::string("sleep:1,2,3,4"), std::string("sleep:1,2,x"), std::string("sleep:-1,0,0"),
        std::string("sleep:61,0,0"), std::string("sleep:nan,0,0"), std::string("sleep:inf,0,0"),
        std::string("sleep:1,2,3;;1,2,3"), std::string("sleep: 1,2,3"), std::string("1,2,3"),
        many}) {
    const auto refused = parse_sleep_model(bad);
    BOOST_REQUIRE_MESSAGE(!refused.ok(), bad);
    BOOST_TEST((refused.error().code == ErrorCode::invalid_argument));
  }
  BOOST_TEST(!load_stage("sleep:0,0,0", spec_of(0, 2, true, true), {}).ok());
  StageSpec empty = spec_of(0, 1, true, true);
  empty.num_kv_blocks = 0;
  BOOST_TEST(!load_stage("sleep:0,0,0", empty, {}).ok());
}

BOOST_AUTO_TEST_CASE(a_step_s_time_follows_its_work) {
  graph::Microbatch microbatch;
  microbatch.slices.resize(2);
  microbatch.slices[0].tokens.resize(10);
  microbatch.slices[0].first_position = 100;
  microbatch.slices[1].tokens.resize(1);
  microbatch.slices[1].first_position = 7;
  // 11 tokens; attended 10 * 105 + 7.5.
  BOOST_TEST(sleep_time({{1e-3, 1e-6, 1e-8}, {1e-3, 0, 0}}, microbatch).count() ==
             2'000'000 + 11'000 + 10'575);
}

BOOST_AUTO_TEST_CASE(steps_take_their_time_on_average) {
  const auto stage = load("sleep:1e-3,0,0", spec_of(0, 1, true, true));
  graph::SequenceDescriptor descriptor = described(1);
  descriptor.sampling.max_new_tokens = 1000;
  graph::StepResult result;
  const TimePoint began = steady_clock().now();
  BOOST_REQUIRE(stage->run(whole_prompt(descriptor), {}, {}, result).ok());
  for (int32_t i = 0; i < 40; ++i) {
    graph::Microbatch next;
    next.slices = {{.id = SequenceId(1),
                    .first_position = 7 + i,
                    .tokens = {result.tokens[0].token},
                    .table_offset = (7 + i + 31) / 32,
                    .sample = true}};
    if ((7 + i) % 32 == 0) next.slices[0].new_blocks = {KvBlockId((7 + i) / 32)};
    result = {};
    BOOST_REQUIRE(stage->run(next, {}, {}, result).ok());
  }
  BOOST_TEST((steady_clock().now() - began >= 41ms));
}

BOOST_AUTO_TEST_CASE(tokens_are_a_function_of_the_sequence) {
  const graph::SequenceDescriptor descriptor = described(1);
  const std::vector<TokenId> expected = generate(descriptor, 100);
  BOOST_REQUIRE_EQUAL(expected.size(), 5u);
  for (const size_t chunk : {1, 2, 6}) BOOST_TEST(generate(descriptor, chunk) == expected);
  graph::SequenceDescriptor again = descriptor;
  again.id = SequenceId(9);
  again.generated = {expected[0], expected[1]};
  BOOST_TEST(generate(again, 4) == std::vector(expected.begin() + 2, expected.end()));
  graph::SequenceDescriptor other = descriptor;
  other.sequence_index = 1;
  BOOST_TEST(generate(other, 100) != expected);
  other = descriptor;
  other.sampling.seed = 4;
  BOOST_TEST(generate(other, 100) != expected);
  other = descriptor;
  std::swap(other.prompt[0], other.prompt[1]);
  BOOST_TEST(generate(other, 100) != expected);
}

BOOST_AUTO_TEST_CASE(what_is_not_the_sequence_s_is_refused) {
  const auto stage = load("sleep:0,0,0", spec_of(0, 1, false, true));
  const graph::SequenceDescriptor descriptor = described(1);
  std::vector<float> rows(7 * kSleepHidden);
  for (int32_t i = 0; i < 7; ++i)
    rows[static_cast<size_t>(i) * kSleepHidden] = static_cast<float>((i + 1) * 31 + i);
  graph::StepResult result;
  const auto refused = [&](const graph::Microbatch& bad, std::span<const float> input,
                           std::string_view what) {
    const Status ran = stage->run(bad, input, {}, result);
    BOOST_REQUIRE_MESSAGE(!ran.ok(), what);
    BOOST_TEST(ran.error().message.find(what) != std::string::npos, ran.error().message);
  };
  const graph::Microbatch good = whole_prompt(descriptor);
  graph::Microbatch bad = good;
  bad.slices[0].tokens[3] = 9;
  refused(bad, rows, "token 9 at position 3 is 4");
  bad = good;
  bad.slices[0].tokens.pop_back();
  refused(bad, std::span(rows).first(6 * kSleepHidden), "7 tokens are known");
  bad = good;
  bad.slices[0].new_blocks.clear();
  refused(bad, rows, "0 blocks");
  bad = good;
  bad.descriptors[0].score.first_position = 1;
  refused(bad, rows, "does not score");
  refused(good, std::span(rows).first(5), "an input of 5 floats");
  std::vector<float> swapped = rows;
  std::swap(swapped[0], swapped[kSleepHidden]);
  refused(good, swapped, "the row of position 0 is another's");
  BOOST_TEST(stage->run(good, rows, {}, result).ok());
  BOOST_TEST(result.tokens.size() == 1u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::models
