#include "models/sampling/sampler.h"

#include <boost/test/unit_test.hpp>
#include <cmath>
#include <limits>
#include <random>

#include "tests/models/fake_tokenizer.h"
#include "tests/models/sampler_reference.h"

namespace chainpump::models {
namespace {

using graph::FinishReason;
using graph::SequenceDescriptor;
using kernels::cpu::Isa;

std::vector<float> random_logits(uint32_t seed, size_t n, float spread) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> logits(n);
  for (float& logit : logits) logit = normal(engine);
  return logits;
}

Sampler sampler_of(const SequenceDescriptor& descriptor, const Tokenizer* tokenizer = nullptr,
                   Isa isa = Isa::reference) {
  auto sampler = Sampler::create(descriptor, tokenizer, isa);
  BOOST_REQUIRE(sampler.ok());
  return std::move(sampler).value();
}

/// The next token after the descriptor.
graph::TokenResult next_of(const SequenceDescriptor& d, std::vector<float> logits,
                           Isa isa = Isa::reference) {
  return sampler_of(d, nullptr, isa)
      .sample(static_cast<int32_t>(d.prompt.size() + d.generated.size()), logits);
}

/// Makes the sampler choose `token`.
graph::TokenResult feed(Sampler& sampler, int32_t position, TokenId token, size_t vocabulary) {
  std::vector<float> logits(vocabulary, 0.0f);
  logits[static_cast<size_t>(token)] = 10.0f;
  return sampler.sample(position, logits);
}

struct ParamsCase {
  const char* name;
  void (*set)(graph::SamplingParams&);
};

const ParamsCase kParamsCases[] = {
    {"greedy", [](graph::SamplingParams& p) { p.temperature = 0; }},
    {"plain", [](graph::SamplingParams&) {}},
    {"cold", [](graph::SamplingParams& p) { p.temperature = 0.2f; }},
    {"hot", [](graph::SamplingParams& p) { p.temperature = 3.0f; }},
    {"top_k", [](graph::SamplingParams& p) { p.top_k = 5; }},
    {"top_k 1", [](graph::SamplingParams& p) { p.top_k = 1; }},
    {"top_k of more than there are", [](graph::SamplingParams& p) { p.top_k = 100'000; }},
    {"top_p", [](graph::SamplingParams& p) { p.top_p = 0.7f; }},
    {"tiny top_p", [](graph::SamplingParams& p) { p.top_p = 1e-6f; }},
    {"min_p", [](graph::SamplingParams& p) { p.min_p = 0.1f; }},
    {"all three",
     [](graph::SamplingParams& p) {
       p.top_k = 40;
       p.top_p = 0.8f;
       p.min_p = 0.05f;
       p.temperature = 1.5f;
     }},
    {"bias",
     [](graph::SamplingParams& p) {
       p.logit_bias = {{3, 6.5f}, {17, -100.0f}};
     }},
    {"repetition", [](graph::SamplingParams& p) { p.repetition_penalty = 1.8f; }},
    {"reverse repetition", [](graph::SamplingParams& p) { p.repetition_penalty = 0.5f; }},
    {"presence", [](graph::SamplingParams& p) { p.presence_penalty = -2; }},
    {"frequency", [](graph::SamplingParams& p) { p.frequency_penalty = -1.5f; }},
    {"all penalties, greedy",
     [](graph::SamplingParams& p) {
       p.temperature = 0;
       p.repetition_penalty = 1.3f;
       p.presence_penalty = 0.7f;
       p.frequency_penalty = 0.4f;
       p.logit_bias = {{1, 1.0f}};
     }},
};

}  // namespace

BOOST_AUTO_TEST_SUITE(sampler)

BOOST_AUTO_TEST_CASE(every_parameter_means_what_the_reference_says) {
  for (const ParamsCase& c : kParamsCases) {
    int borders = 0;
    for (uint32_t seed = 0; seed < 150; ++seed) {
      SequenceDescriptor d;
      d.sampling.temperature = 1;
      d.sampling.seed = seed * 77;
      d.sequence_index = seed % 3;
      c.set(d.sampling);
      for (uint32_t i = 0; i < 40; ++i) d.prompt.push_back(static_cast<TokenId>(i * seed % 300));
      for (uint32_t i = 0; i < 30; ++i) d.generated.push_back(static_cast<TokenId>(i * seed % 7));
      const std::vector<float> logits = random_logits(seed, 3000, 2.5f);
      const std::vector<TokenId> allowed = reference::allowed(d, logits, 2e-6);
      borders += allowed.size() > 1;
      const TokenId got = next_of(d, logits).token;
      BOOST_TEST((std::find(allowed.begin(), allowed.end(), got) != allowed.end()),
                 c.name << ", seed " << seed << ": token " << got);
    }
    BOOST_TEST(borders <= 6, c.name);  // else the comparison says little
  }
}

BOOST_AUTO_TEST_CASE(instruction_sets_agree_where_the_sums_do) {
  for (const Isa isa : kernels::cpu::available_isas()) {
    for (uint32_t seed = 0; seed < 50; ++seed) {
      SequenceDescriptor d;
      d.sampling.temperature = 1;
      d.sampling.top_p = 0.9f;
      d.sampling.seed = seed;
      const std::vector<float> logits = random_logits(seed, 2000, 3);
      BOOST_TEST(next_of(d, logits, isa).token == next_of(d, logits).token, "seed " << seed);
    }
  }
}

BOOST_AUTO_TEST_CASE(ties_go_to_the_smaller_id) {
  SequenceDescriptor d;
  const std::vector<float> logits = {0, 5, 5, 5, 1};
  BOOST_TEST(next_of(d, logits).token == 1);
  d.sampling.temperature = 1;
  d.sampling.top_k = 2;  // 1 and 2, not 3
  int counts[5] = {};
  for (uint64_t seed = 0; seed < 400; ++seed) {
    d.sampling.seed = seed;
    ++counts[next_of(d, logits).token];
  }
  BOOST_TEST(counts[1] + counts[2] == 400);
  BOOST_TEST((counts[1] > 150 && counts[2] > 150));
}

BOOST_AUTO_TEST_CASE(draws_follow_the_distribution) {
  SequenceDescriptor d;
  d.sampling.temperature = 0.8f;
  d.sampling.top_p = 0.95f;
  d.sampling.max_new_tokens = 1'000'000;
  d.sampling.seed = 12345;
  const std::vector<float> logits = random_logits(5, 40, 1.0f);
  const auto want = reference::distribution(d, logits);
  std::map<TokenId, int> counts;
  constexpr int kDraws = 40'000;
  Sampler sampler = sampler_of(d);
  for (int position = 0; position < kDraws; ++position) {
    std::vector<float> copy = logits;
    ++counts[sampler.sample(position, copy).token];
  }
  double chi_square = 0;
  for (const auto& [token, p] : want) {
    const double difference = counts[token] - p * kDraws;
    chi_square += difference * difference / (p * kDraws);
  }
  BOOST_TEST(counts.size() == want.size());
  // Mean n - 1, deviation sqrt(2 (n - 1)); the draw is a fixed function, so this never flickers.
  const double n = static_cast<double>(want.size()) - 1;
  BOOST_TEST(chi_square < n + 4 * std::sqrt(2 * n));
}

BOOST_AUTO_TEST_CASE(seed_sequence_and_position_each_change_the_draw) {
  SequenceDescriptor d;
  d.sampling.temperature = 1;
  const std::vector<float> flat(50'000, 0.0f);
  const TokenId base = next_of(d, flat).token;
  BOOST_TEST(next_of(d, flat).token == base);
  SequenceDescriptor other = d;
  other.sampling.seed = 1;
  BOOST_TEST(next_of(other, flat).token != base);
  other = d;
  other.sequence_index = 1;
  BOOST_TEST(next_of(other, flat).token != base);
  other = d;
  other.prompt = {1};
  BOOST_TEST(next_of(other, flat).token != base);
  // The prompt's tokens do not, only how many there are.
  SequenceDescriptor third = other;
  third.prompt = {2};
  BOOST_TEST(next_of(third, flat).token == next_of(other, flat).token);
}

BOOST_AUTO_TEST_CASE(rebuilding_mid_way_changes_nothing) {
  const FakeTokenizer tokenizer({"a", "b", "ab", "c", "\xc3", "\xa9", "<|end|>", "x"}, {6});
  SequenceDescriptor d;
  d.prompt = {0, 1, 2};
  d.sampling.temperature = 1.2f;
  d.sampling.repetition_penalty = 1.1f;
  d.sampling.frequency_penalty = 0.2f;
  d.sampling.presence_penalty = 0.1f;
  d.sampling.top_p = 0.99f;
  d.sampling.num_top_logprobs = 3;
  d.sampling.max_new_tokens = 60;
  d.sampling.stop = {"abc", "caa", "\xc3\xa9"};
  int stopped_by_text = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    d.sampling.seed = seed;
    const auto logits_at = [&](int32_t position) {
      return random_logits(seed * 1000 + static_cast<uint32_t>(position), 8, 0.7f);
    };
    std::vector<graph::TokenResult> whole;
    Sampler sampler = sampler_of(d, &tokenizer);
    for (int32_t position = 3;; ++position) {
      std::vector<float> logits = logits_at(position);
      whole.push_back(sampler.sample(position, logits));
      if (whole.back().finish != FinishReason::none) break;
    }
    stopped_by_text += whole.back().text_bytes >= 0;
    SequenceDescriptor later = d;
    for (size_t n = 0; n < whole.size(); ++n) {  // a crash after n tokens
      Sampler again = sampler_of(later, &tokenizer);
      for (size_t i = n; i < whole.size(); ++i) {
        std::vector<float> logits = logits_at(static_cast<int32_t>(3 + i));
        BOOST_TEST((again.sample(static_cast<int32_t>(3 + i), logits) == whole[i]));
      }
      later.generated.push_back(whole[n].token);
    }
  }
  BOOST_TEST(stopped_by_text > 5);
}

BOOST_AUTO_TEST_CASE(logprobs_are_of_the_unmodified_distribution) {
  SequenceDescriptor d;
  d.sampling.num_top_logprobs = 4;
  d.sampling.logit_bias = {{2, 50.0f}};
  d.sampling.temperature = 0.5f;
  const std::vector<float> logits = {1.0f, 3.0f, -2.0f, 3.0f, 0.5f};
  const graph::TokenResult result = next_of(d, logits);
  BOOST_TEST(result.token == 2);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  BOOST_TEST(std::abs(result.logprob - (-2.0 - std::log(sum))) < 1e-5);
  const std::vector<TokenId> want = {1, 3, 0, 4};
  BOOST_REQUIRE(result.top_logprobs.size() == want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    const auto [token, logprob] = result.top_logprobs[i];
    BOOST_TEST(token == want[i]);
    const double logit = logits[static_cast<size_t>(token)];
    BOOST_TEST(std::abs(logprob - (logit - std::log(sum))) < 1e-5);
  }
  d.sampling.num_top_logprobs = 0;
  BOOST_TEST(next_of(d, logits).top_logprobs.empty());
  BOOST_TEST(next_of(d, logits).logprob < -1);
  d.sampling.num_top_logprobs = 20;  // more than there are
  BOOST_TEST(next_of(d, logits).top_logprobs.size() == 5U);
  d.sampling.num_top_logprobs = -1;
  BOOST_TEST(next_of(d, logits).logprob == 0);
}

BOOST_AUTO_TEST_CASE(each_reason_to_finish) {
  const FakeTokenizer tokenizer({"a", "b", "<|end|>", "c"}, {2});
  SequenceDescriptor d;
  d.sampling.max_new_tokens = 3;
  d.sampling.stop_token_ids = {3};
  {
    Sampler sampler = sampler_of(d, &tokenizer);
    BOOST_TEST((feed(sampler, 0, 0, 4).finish == FinishReason::none));
    BOOST_TEST((feed(sampler, 1, 0, 4).finish == FinishReason::none));
    const graph::TokenResult last = feed(sampler, 2, 0, 4);
    BOOST_TEST((last.finish == FinishReason::length));
    BOOST_TEST(last.text_bytes == -1);
  }
  for (const TokenId token : {2, 3}) {  // the model's end token; a stop id
    Sampler sampler = sampler_of(d, &tokenizer);
    const graph::TokenResult result = feed(sampler, 0, token, 4);
    BOOST_TEST((result.finish == FinishReason::stop));
    BOOST_TEST(result.token == token);
    BOOST_TEST(result.text_bytes == -1);
  }
  d.sampling.ignore_eos = true;
  Sampler sampler = sampler_of(d, &tokenizer);
  BOOST_TEST((feed(sampler, 0, 2, 4).finish == FinishReason::none));
  BOOST_TEST((feed(sampler, 1, 3, 4).finish == FinishReason::stop));
}

BOOST_AUTO_TEST_CASE(stop_strings_are_found_across_tokens) {
  const FakeTokenizer tokenizer({"Hel", "lo w", "orld", "\n", "\xe2\x82", "\xac", "<|x|>"}, {});
  struct Case {
    std::vector<std::string> stop;
    std::vector<TokenId> tokens;
    int64_t text_bytes;  // -1: not found
  };
  const Case cases[] = {
      {{"lo wo"}, {0, 1, 2}, 3},
      {{"o w"}, {0, 1}, 4},                       // within one token
      {{"world", "lo wor"}, {0, 1, 2}, 3},        // the first in the text wins
      {{"Hello world"}, {0, 1, 2}, 0},            // all of it
      {{"\n\n"}, {3, 0, 3, 3}, 4},                //
      {{"\n\n\n\n"}, {3, 3, 3, 3}, 0},            // one byte at a time
      {{"\xe2\x82\xac"}, {0, 4, 5}, 3},           // a character of two tokens
      {{"lo world"}, {0, 1, 6, 2}, 3},            // a control token has no text
      {{"<|x|>"}, {0, 6, 6}, -1},                 // nor can it be matched
      {{"Helo"}, {0, 1, 2}, -1},                  //
      {{"Hello world!", "z"}, {0, 1, 2, 0}, -1},  //
  };
  for (const Case& c : cases) {
    SequenceDescriptor d;
    d.prompt = {0, 1, 2, 3, 3};  // only generated text counts
    d.sampling.stop = c.stop;
    Sampler sampler = sampler_of(d, &tokenizer);
    for (size_t i = 0; i < c.tokens.size(); ++i) {
      const graph::TokenResult result = feed(sampler, static_cast<int32_t>(5 + i), c.tokens[i], 7);
      const bool last = i + 1 == c.tokens.size();
      BOOST_TEST((result.finish == FinishReason::stop) == (last && c.text_bytes >= 0),
                 c.stop[0] << " after " << i);
      if (last) BOOST_TEST(result.text_bytes == c.text_bytes, c.stop[0]);
    }
  }
}

BOOST_AUTO_TEST_CASE(logits_that_are_not_numbers_end_the_sequence) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const float temperature : {0.0f, 1.0f}) {
    SequenceDescriptor d;
    d.sampling.temperature = temperature;
    for (const float bad : {kNan, kInf, -kInf})
      BOOST_TEST((next_of(d, {bad, bad}).finish == FinishReason::failed));
    BOOST_TEST((next_of(d, {0.0f, kInf}).finish == FinishReason::failed));
    BOOST_TEST(next_of(d, {-kInf, 1.0f}).token == 1);
    d.sampling.num_top_logprobs = 0;
    BOOST_TEST((next_of(d, {0.0f, kNan}).finish == FinishReason::failed));
  }
}

BOOST_AUTO_TEST_CASE(what_cannot_be_is_refused) {
  const FakeTokenizer tokenizer({"a", "b"}, {});
  struct Case {
    const char* named;
    void (*spoil)(SequenceDescriptor&);
  };
  const Case cases[] = {
      {"temperature", [](SequenceDescriptor& d) { d.sampling.temperature = -1; }},
      {"prompt holds token 2",
       [](SequenceDescriptor& d) {
         d.prompt = {0, 2};
       }},
      {"generated part holds token -1", [](SequenceDescriptor& d) { d.generated = {-1}; }},
      {"stop_token_ids", [](SequenceDescriptor& d) { d.sampling.stop_token_ids = {2}; }},
      {"generated already",
       [](SequenceDescriptor& d) {
         d.generated = {0, 1};
         d.sampling.max_new_tokens = 2;
       }},
  };
  for (const Case& c : cases) {
    SequenceDescriptor d;
    c.spoil(d);
    const auto sampler = Sampler::create(d, &tokenizer, Isa::reference);
    BOOST_REQUIRE(!sampler.ok());
    BOOST_TEST((sampler.error().code == ErrorCode::invalid_argument));
    BOOST_TEST(sampler.error().message.find(c.named) != std::string::npos, sampler.error().message);
  }
  SequenceDescriptor d;
  d.sampling.stop = {"x"};
  BOOST_TEST(!Sampler::create(d, nullptr, Isa::reference).ok());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::models
