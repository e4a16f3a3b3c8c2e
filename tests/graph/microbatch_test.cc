#include "graph/microbatch.h"

#include <boost/test/unit_test.hpp>
#include <cstring>
#include <limits>
#include <random>

#include "tests/graph/microbatch_samples.h"

namespace chainpump::graph {
namespace {

class Generator {
 public:
  explicit Generator(uint32_t seed) : engine_(seed) {}

  int32_t upto(int32_t most) { return std::uniform_int_distribution<int32_t>(0, most)(engine_); }
  float real(float low, float high) {
    return std::uniform_real_distribution<float>(low, high)(engine_);
  }
  std::vector<TokenId> tokens(int32_t n) {
    std::vector<TokenId> out(static_cast<size_t>(n));
    for (TokenId& t : out) t = upto(kLimits.vocabulary_size - 1);
    return out;
  }
  std::string text(int32_t least, int32_t most) {
    std::string out(static_cast<size_t>(least + upto(most - least)), ' ');
    for (char& c : out) c = static_cast<char>(1 + upto(254));
    return out;
  }
  SamplingParams sampling();
  Microbatch microbatch();
  StepResult step_result();

 private:
  std::mt19937 engine_;
};

SamplingParams Generator::sampling() {
  SamplingParams p;
  p.temperature = real(0, 2);
  p.top_p = real(0.1f, 1);
  p.min_p = real(0, 0.9f);
  p.top_k = upto(100);
  p.repetition_penalty = real(0.5f, 2);
  p.presence_penalty = real(-2, 2);
  p.frequency_penalty = real(-2, 2);
  for (int32_t i = upto(3), token = 0; i > 0; --i)
    p.logit_bias.emplace_back(token += 1 + upto(50), real(-100, 100));
  p.seed = (uint64_t{engine_()} << 32) | engine_();
  p.max_new_tokens = 1 + upto(1000);
  p.ignore_eos = upto(1) == 1;
  for (int32_t i = upto(3); i > 0; --i) p.stop.push_back(text(1, 20));
  p.stop_token_ids = tokens(upto(3));
  p.num_top_logprobs = upto(21) - 1;
  return p;
}

Microbatch Generator::microbatch() {
  Microbatch m;
  m.id = MicrobatchId(engine_());
  m.slowest = Duration(engine_());
  m.slowest_stage = StageIndex(upto(1000));
  for (int32_t i = upto(3); i > 0; --i) m.released.emplace_back(engine_());
  for (int32_t i = upto(3); i > 0; --i)
    m.copies.push_back({KvBlockId(upto(31)), KvBlockId(upto(31))});
  for (int32_t i = upto(3); i > 0; --i) {
    SequenceDescriptor d;
    d.id = SequenceId(engine_());
    d.sequence_index = static_cast<uint32_t>(upto(4));
    d.sampling = sampling();
    d.score.first_position = upto(128) - 1;
    d.score.full_path = text(0, 30);
    d.prompt = tokens(upto(60));
    d.generated = tokens(upto(60));
    m.descriptors.push_back(std::move(d));
  }
  for (int32_t i = upto(4); i > 0; --i) {
    SequenceSlice s;
    s.id = SequenceId(engine_());
    s.first_position = upto(100);
    s.tokens = tokens(1 + upto(15));
    s.table_offset = upto(16);
    for (int32_t b = upto(8); b > 0; --b) s.new_blocks.emplace_back(upto(31));
    s.sample = upto(1) == 1;
    m.slices.push_back(std::move(s));
  }
  return m;
}

StepResult Generator::step_result() {
  StepResult r;
  r.id = MicrobatchId(engine_());
  r.slowest = Duration(engine_());
  r.slowest_stage = StageIndex(upto(1000));
  for (int32_t i = upto(4); i > 0; --i) {
    TokenResult t;
    t.id = SequenceId(engine_());
    t.position = upto(128);
    t.token = upto(999);
    t.logprob = -real(0, 20);
    t.finish = static_cast<FinishReason>(upto(4));
    t.text_bytes = upto(100) - 1;
    for (int32_t n = upto(20); n > 0; --n) t.top_logprobs.emplace_back(upto(999), -real(0, 20));
    r.tokens.push_back(std::move(t));
  }
  for (int32_t i = upto(10); i > 0; --i)
    r.scores.push_back({SequenceId(engine_()), upto(127), -real(0, 20), upto(999), upto(1) == 1});
  return r;
}

template <typename T>
std::string message_of(const Result<T>& result) {
  return result.ok() ? "" : result.error().message;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(microbatch)

BOOST_AUTO_TEST_CASE(what_was_encoded_comes_back) {
  for (uint32_t seed = 0; seed < 500; ++seed) {
    Generator generator(seed);
    const Microbatch m = generator.microbatch();
    const auto m_back = decode_microbatch(encoded(m), kLimits);
    BOOST_REQUIRE_MESSAGE(m_back.ok(), "seed " << seed << ": " << message_of(m_back));
    BOOST_REQUIRE_MESSAGE(*m_back == m, "seed " << seed);
    const StepResult r = generator.step_result();
    const auto r_back = decode_step_result(encoded(r), kLimits);
    BOOST_REQUIRE_MESSAGE(r_back.ok(), "seed " << seed << ": " << message_of(r_back));
    BOOST_REQUIRE_MESSAGE(*r_back == r, "seed " << seed);
  }
}

BOOST_AUTO_TEST_CASE(encoding_appends) {
  Bytes out(3, std::byte{0x55});
  encode(sample_step_result(), out);
  const auto back = decode_step_result(std::span(out).subspan(3), kLimits);
  BOOST_TEST((back.ok() && *back == sample_step_result()));
}

BOOST_AUTO_TEST_CASE(the_byte_layout_stays) {
  Microbatch m;
  m.id = MicrobatchId(0x0102030405060708);
  m.slowest = Duration(0x1112131415161718);
  m.slowest_stage = StageIndex(9);
  m.stages = {.first = 2, .last = 258};
  m.keep_log = true;
  m.canary = true;
  m.copies = {{KvBlockId(7), KvBlockId(8)}};
  m.slices = {{SequenceId(2), 3, {4}, 5, {KvBlockId(6)}, true}};
  const std::vector<int> want = {8,  7,  6,  5,  4,  3,  2,  1,               // id
                                 24, 23, 22, 21, 20, 19, 18, 17,              // slowest
                                 9,  0,  0,  0,                               // its stage
                                 2,  0,  0,  0,  2,  1,  0,  0,  1,           // stages, keep_log
                                 1,                                           // canary
                                 0,  0,  0,  0,                               // released
                                 1,  0,  0,  0,  7,  0,  0,  0,  8, 0, 0, 0,  // copies
                                 0,  0,  0,  0,                               // descriptors
                                 1,  0,  0,  0,  2,  0,  0,  0,  0, 0, 0, 0,  // slices; id
                                 3,  0,  0,  0,  5,  0,  0,  0,  1,  // position, offset, sample
                                 1,  0,  0,  0,  4,  0,  0,  0,      // tokens
                                 1,  0,  0,  0,  6,  0,  0,  0};     // new blocks
  std::vector<int> got;
  for (const std::byte b : encoded(m)) got.push_back(std::to_integer<int>(b));
  BOOST_TEST(got == want, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(the_slowest_stage_is_noted_in_the_bytes) {
  Microbatch m = sample_microbatch();
  Bytes bytes = encoded(m);
  note_step_time(bytes, m.slowest, StageIndex(2));  // as long is not longer
  BOOST_TEST((bytes == encoded(m)));
  note_step_time(bytes, m.slowest - Duration(1), StageIndex(2));
  BOOST_TEST((bytes == encoded(m)));
  m.slowest += Duration(1);
  m.slowest_stage = StageIndex(2);
  note_step_time(bytes, m.slowest, StageIndex(2));
  BOOST_TEST((bytes == encoded(m)));

  StepResult r = sample_step_result();
  bytes = encoded(r);
  r.slowest = Duration(5);
  r.slowest_stage = StageIndex(3);
  note_step_time(bytes, Duration(5), StageIndex(3));
  BOOST_TEST((bytes == encoded(r)));
}

BOOST_AUTO_TEST_CASE(every_truncation_is_refused) {
  const Bytes m = encoded(sample_microbatch());
  for (size_t n = 0; n < m.size(); ++n)
    BOOST_TEST(!decode_microbatch(std::span(m).first(n), kLimits).ok(), "at " << n);
  const Bytes r = encoded(sample_step_result());
  for (size_t n = 0; n < r.size(); ++n)
    BOOST_TEST(!decode_step_result(std::span(r).first(n), kLimits).ok(), "at " << n);
}

BOOST_AUTO_TEST_CASE(bytes_after_the_end_are_refused) {
  Bytes m = encoded(sample_microbatch());
  m.push_back(std::byte{0});
  const auto result = decode_microbatch(m, kLimits);
  BOOST_REQUIRE(!result.ok());
  BOOST_TEST(contains(result.error().message, "1 bytes follow"));
  Bytes r = encoded(sample_step_result());
  r.push_back(std::byte{0});
  BOOST_TEST(!decode_step_result(r, kLimits).ok());
}

BOOST_AUTO_TEST_CASE(a_flipped_or_overwritten_field_never_reads_out_of_bounds) {
  // Whatever decodes must be something that could have been sent: it encodes to the same bytes.
  const Bytes good = encoded(sample_microbatch());
  for (size_t at = 0; at < good.size(); ++at) {
    for (const uint32_t lie : {0u, 1u, 0xffu, 0xffffu, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
      Bytes bad = good;
      std::memcpy(&bad[at], &lie, std::min(sizeof(lie), bad.size() - at));
      const auto result = decode_microbatch(bad, kLimits);
      if (result.ok()) BOOST_TEST((encoded(*result) == bad));
    }
  }
}

BOOST_AUTO_TEST_CASE(a_lying_count_is_refused_before_it_costs_memory) {
  Bytes bytes = encoded(Microbatch{});
  const uint32_t lie = 7;  // within max_sequences, but no bytes are there
  std::memcpy(&bytes[30], &lie, sizeof(lie));
  auto result = decode_microbatch(bytes, kLimits);
  BOOST_REQUIRE(!result.ok());
  BOOST_TEST(contains(result.error().message, "released has 7 entries, more than"));

  MicrobatchLimits wide = kLimits;
  wide.max_sequences = std::numeric_limits<int32_t>::max();
  const uint32_t huge = 0x7fffffff;
  std::memcpy(&bytes[30], &huge, sizeof(huge));
  result = decode_microbatch(bytes, wide);
  BOOST_REQUIRE(!result.ok());
  BOOST_TEST(contains(result.error().message, "more than the 12 bytes left"));
}

BOOST_AUTO_TEST_CASE(finish_reasons_have_names) {
  BOOST_TEST(to_string(FinishReason::none) == "none");
  BOOST_TEST(to_string(FinishReason::stop) == "stop");
  BOOST_TEST(to_string(FinishReason::length) == "length");
  BOOST_TEST(to_string(FinishReason::cancelled) == "cancelled");
  BOOST_TEST(to_string(FinishReason::failed) == "failed");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
