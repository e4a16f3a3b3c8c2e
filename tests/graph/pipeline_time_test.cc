// How well the sequencer fills a chain, in virtual time: stages that take a known time for what a
// microbatch asks of them, links that take none. What the best schedule could do is known as well,
// so the distance to it is the sequencer's own.
#include <fmt/format.h>

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <functional>
#include <map>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#include "graph/sequencer.h"
#include "tests/fakes/why.h"

namespace chainpump::graph {
namespace {

using Coefficients = StepCost::Coefficients;

double cost_s(const Coefficients& c, const StepWork& work) {
  return c.overhead_s + c.token_s * static_cast<double>(work.tokens) + c.attended_s * work.attended;
}

Duration nanoseconds_of(double seconds) {
  return Duration(static_cast<int64_t>(std::llround(seconds * 1e9)));
}

/// A chain whose stages take `costs[stage]`, one microbatch at a time and in order.
class TimedChain {
 public:
  TimedChain(const SequencerOptions& options, std::vector<Coefficients> costs)
      : sequencer(options), costs_(std::move(costs)), free_at_(costs_.size()) {}

  void submit(uint64_t id, int num_prompt, int max_new) {
    Request request;
    request.id = RequestId(id);
    for (int i = 0; i < num_prompt; ++i)
      request.prompt.push_back((i * 7 + static_cast<int>(id)) % 1000);
    request.sampling.max_new_tokens = max_new;
    request.sampling.ignore_eos = true;
    const Status taken = sequencer.submit(std::move(request), now);
    BOOST_TEST_REQUIRE(taken.ok(), fakes::why(taken));
  }

  /// One event: a microbatch sets out, or the clock moves on. False if nothing is left.
  bool step() {
    if (free_at_[0] <= now) {
      if (const auto microbatch = sequencer.next()) {
        send(*microbatch);
        return true;
      }
    }
    if (results_.empty()) return false;
    const TimePoint next_result = results_.front().first;
    now = free_at_[0] > now ? std::min(free_at_[0], next_result) : next_result;
    if (now == next_result) take();
    return true;
  }
  void run_dry() {
    while (step()) continue;
    BOOST_TEST_REQUIRE(sequencer.idle());
  }

  Sequencer sequencer;
  TimePoint now;
  std::map<uint64_t, std::vector<TimePoint>> token_times;  // by request
  Duration last_stage_busy{0};
  int num_ended = 0;

 private:
  struct Held {
    int32_t max_new = 0;
    int32_t generated = 0;
  };

  void send(const Microbatch& microbatch) {
    for (const SequenceId id : microbatch.released) held_.erase(id);
    for (const SequenceDescriptor& d : microbatch.descriptors)
      held_[d.id] = {d.sampling.max_new_tokens, static_cast<int32_t>(d.generated.size())};
    StepResult result{.id = microbatch.id};
    StepWork work;
    for (const SequenceSlice& slice : microbatch.slices) {
      const auto num_tokens = static_cast<int32_t>(slice.tokens.size());
      work.add(num_tokens, slice.first_position);
      if (!slice.sample) continue;
      TokenResult token{.id = slice.id, .position = slice.first_position + num_tokens, .token = 1};
      Held& held = held_.at(slice.id);
      if (++held.generated == held.max_new) token.finish = FinishReason::length;
      result.tokens.push_back(token);
    }
    TimePoint at = now;
    for (size_t stage = 0; stage < costs_.size(); ++stage) {
      const Duration spent = nanoseconds_of(cost_s(costs_[stage], work));
      at = free_at_[stage] = std::max(at, free_at_[stage]) + spent;
      if (stage + 1 == costs_.size()) last_stage_busy += spent;
      if (spent <= result.slowest) continue;
      result.slowest = spent;
      result.slowest_stage = StageIndex(static_cast<int32_t>(stage));
    }
    results_.emplace_back(at, std::move(result));
  }

  void take() {
    Deliveries out;
    const Status taken = sequencer.on_result(results_.front().second, now, out);
    BOOST_TEST_REQUIRE(taken.ok(), fakes::why(taken));
    results_.pop_front();
    num_ended += static_cast<int>(out.ended.size());
    for (const TokenDelivery& token : out.tokens)
      token_times[token.choice.request.value].push_back(now);
  }

  std::vector<Coefficients> costs_;
  std::vector<TimePoint> free_at_;
  std::deque<std::pair<TimePoint, StepResult>> results_;
  std::map<SequenceId, Held> held_;
};

SequencerOptions options_of(size_t num_stages, const Coefficients& prior) {
  SequencerOptions options;
  for (size_t i = 0; i < num_stages; ++i)
    options.stages.push_back({fmt::format("stage {}", i), 4096});
  options.block_tokens = 32;
  options.context_tokens = 40'000;
  options.max_microbatch_tokens = 4096;
  options.max_sequences = 256;
  options.max_microbatches = 2 * static_cast<int32_t>(num_stages);
  options.vocabulary_size = 1000;
  options.decode_delay_max = std::chrono::milliseconds(50);
  options.cost_prior = prior;
  return options;
}

// -- A long prompt
// ---------------------------------------------------------------------------------

constexpr int kPromptTokens = 32'768;

/// A model of 8 billion parameters over `num_stages` accelerators.
Coefficients long_prompt_cost(size_t num_stages) {
  const auto s = static_cast<double>(num_stages);
  return {.overhead_s = 3e-4, .token_s = 32e-6 / s, .attended_s = 1.05e-9 / s};
}

double prompt_work_s(size_t num_stages) {
  StepWork work;
  work.add(kPromptTokens, 0);
  return cost_s(long_prompt_cost(num_stages), work) - 3e-4;
}

/// Of the last of `num_prompts` that come one after the other.
double first_token_s(const SequencerOptions& options, uint64_t num_prompts = 1) {
  const size_t num_stages = options.stages.size();
  TimedChain chain(options, {num_stages, long_prompt_cost(num_stages)});
  TimePoint sent;
  for (uint64_t id = 1; id <= num_prompts; ++id) {
    sent = chain.now;
    chain.submit(id, kPromptTokens, 1);
    chain.run_dry();
    BOOST_TEST_REQUIRE(chain.token_times[id].size() == 1u);
  }
  return to_seconds(chain.token_times[num_prompts][0] - sent);
}

double fixed_s(size_t num_stages, int32_t chunk_tokens) {
  SequencerOptions options = options_of(num_stages, long_prompt_cost(num_stages));
  options.prefill_chunk_tokens = chunk_tokens;
  return first_token_s(options);
}

BOOST_AUTO_TEST_SUITE(pipeline_time)

// k chunks of equal time through S equal stages: k a + W + (S - 1) (a + W / k), least at
// k = sqrt((S - 1) W / a): W + (S - 1) a + 2 sqrt((S - 1) W a). No other way of cutting does
// better, not even a different one at each stage: whatever a stage passes on, the next one lags by
// it.
BOOST_AUTO_TEST_CASE(a_long_prompt_takes_hardly_longer_than_the_best_chunks) {
  for (const size_t num_stages : {4u, 8u}) {
    const double others = static_cast<double>(num_stages) - 1;
    const Coefficients truth = long_prompt_cost(num_stages);
    const double work_s = prompt_work_s(num_stages);
    const double best_s =
        work_s + others * truth.overhead_s + 2 * std::sqrt(others * work_s * truth.overhead_s);
    const double alone_s = truth.overhead_s + prompt_work_s(1);
    const auto scaling = [&](double s) { return alone_s / (static_cast<double>(num_stages) * s); };

    const double known_s = first_token_s(options_of(num_stages, truth));
    Coefficients off = truth;  // as a plan may be that measured nothing
    off.overhead_s *= 3;
    off.token_s /= 2;
    off.attended_s *= 2;
    const double learned_s = first_token_s(options_of(num_stages, off), 2);
    const double fixed_2048_s = fixed_s(num_stages, 2048);
    double best_fixed_s = fixed_2048_s;
    int32_t best_fixed = 2048;
    for (int32_t tokens = 128; tokens <= 2048; tokens += 32) {
      const double s = fixed_s(num_stages, tokens);
      if (s < best_fixed_s) std::tie(best_fixed_s, best_fixed) = std::pair(s, tokens);
    }
    BOOST_TEST_MESSAGE(fmt::format(
        "{} stages: strong scaling {:.4f} (the second one, from a prior that is off: {:.4f}), "
        "bound {:.4f}; fixed "
        "2048 {:.4f}, best fixed ({}) {:.4f}; over fixed 2048 {:.3f}, over best fixed {:.3f}",
        num_stages, scaling(known_s), scaling(learned_s), scaling(best_s), scaling(fixed_2048_s),
        best_fixed, scaling(best_fixed_s), fixed_2048_s / known_s, best_fixed_s / known_s));
    BOOST_TEST(known_s < 1.01 * best_s);
    BOOST_TEST(learned_s < 1.02 * best_s);
    BOOST_TEST(known_s < best_fixed_s);
    BOOST_TEST(fixed_2048_s / known_s >= 1.05);
  }
}

// -- Many that decode
// ------------------------------------------------------------------------------

/// Tokens per second over the middle of the run, all requests decoding.
double decode_rate(const std::vector<Coefficients>& costs, int num_requests) {
  const Coefficients slowest = *std::max_element(
      costs.begin(), costs.end(),
      [](const Coefficients& a, const Coefficients& b) { return a.overhead_s < b.overhead_s; });
  TimedChain chain(options_of(costs.size(), slowest), costs);
  for (int i = 1; i <= num_requests; ++i) chain.submit(static_cast<uint64_t>(i), 10, 200);
  chain.run_dry();
  std::vector<TimePoint> times;
  for (const auto& [id, of_request] : chain.token_times)
    times.insert(times.end(), of_request.begin(), of_request.end());
  std::sort(times.begin(), times.end());
  const size_t quarter = times.size() / 4;
  const Duration spent = times[3 * quarter] - times[quarter];
  return static_cast<double>(2 * quarter) / to_seconds(spent);
}

// Each stage takes 2 ms whatever it is given: S microbatches in flight hold all requests between
// them, so each carries R / S tokens and one ends every 2 ms.
BOOST_AUTO_TEST_CASE(decodes_keep_every_stage_busy) {
  for (const size_t num_stages : {2u, 4u, 8u, 16u}) {
    const int num_requests = 8 * static_cast<int>(num_stages);
    const double rate = decode_rate({num_stages, Coefficients{.overhead_s = 2e-3}}, num_requests);
    const double ideal = 8 / 2e-3;
    BOOST_TEST_MESSAGE(fmt::format("{} stages of 2 ms, {} requests: {:.3f} of the ideal",
                                   num_stages, num_requests, rate / ideal));
    BOOST_TEST(rate >= 0.97 * ideal);
  }
}

// Those who begin one after the other could set out in more and smaller microbatches than there are
// stages, and stay so for good, as each that ends makes room for another.
BOOST_AUTO_TEST_CASE(latecomers_do_not_make_microbatches_smaller) {
  for (const size_t num_stages : {2u, 4u, 8u}) {
    std::vector<Coefficients> costs(num_stages, {.overhead_s = 2e-3});
    costs[0].overhead_s = 1e-3;  // free again before the others are
    TimedChain chain(options_of(num_stages, costs.back()), costs);
    const uint64_t num_requests = 8 * num_stages;
    for (uint64_t id = 1; id <= num_requests; ++id) {
      chain.submit(id, 10, 200);
      for (int i = 0; i < 3; ++i) BOOST_TEST_REQUIRE(chain.step());
    }
    while (chain.token_times[num_requests].size() < 20) BOOST_TEST_REQUIRE(chain.step());
    const auto num_tokens = [&] {
      size_t sum = 0;
      for (const auto& [id, times] : chain.token_times) sum += times.size();
      return sum;
    };
    const size_t tokens_before = num_tokens();
    const TimePoint start = chain.now;
    while (chain.token_times[num_requests].size() < 80) BOOST_TEST_REQUIRE(chain.step());
    const double rate =
        static_cast<double>(num_tokens() - tokens_before) / to_seconds(chain.now - start);
    BOOST_TEST_MESSAGE(fmt::format("{} stages, {} requests that came one after the other: {:.3f}",
                                   num_stages, num_requests, rate / (8 / 2e-3)));
    BOOST_TEST(rate >= 0.97 * 8 / 2e-3);
  }
}

BOOST_AUTO_TEST_CASE(uneven_stages_run_at_the_pace_of_the_slowest) {
  const std::vector<Coefficients> costs = {
      {.overhead_s = 1e-3}, {.overhead_s = 2.5e-3}, {.overhead_s = 0.5e-3}, {.overhead_s = 2e-3}};
  const double rate = decode_rate(costs, 32);
  const double bound = 8 / 2.5e-3;
  BOOST_TEST_MESSAGE(fmt::format("uneven stages, 32 requests: {:.3f} of the bound", rate / bound));
  BOOST_TEST(rate >= 0.97 * bound);
}

// Somebody always has a prompt to compute while the others decode: steps are not equal then, and
// the stages behind a long one wait for the next.
BOOST_AUTO_TEST_CASE(a_mix_of_prompts_and_decodes_keeps_the_last_stage_busy) {
  for (const size_t num_stages : {2u, 4u, 8u}) {
    const Coefficients cost = long_prompt_cost(num_stages);
    TimedChain chain(options_of(num_stages, cost), {num_stages, cost});
    std::mt19937 random(3);
    uint64_t last_id = 0;
    const auto submit = [&] {
      chain.submit(++last_id, 50 + static_cast<int>(random() % 1000),
                   20 + static_cast<int>(random() % 200));
    };
    for (int i = 0; i < 64; ++i) submit();
    TimePoint start;
    Duration busy_before{0};
    while (chain.num_ended < 400) {  // one that ends is followed by another
      const int num_ended = chain.num_ended;
      BOOST_TEST_REQUIRE(chain.step());
      for (int i = num_ended; i < chain.num_ended; ++i) submit();
      if (num_ended >= 64 || chain.num_ended < 64) continue;
      start = chain.now;
      busy_before = chain.last_stage_busy;
    }
    const double busy =
        to_seconds(chain.last_stage_busy - busy_before) / to_seconds(chain.now - start);
    BOOST_TEST_MESSAGE(
        fmt::format("{} stages, 64 requests that come and go: the last one is busy "
                    "{:.3f} of the time",
                    num_stages, busy));
    BOOST_TEST(busy >= 0.95);
  }
}

// A prompt of 32 K tokens arrives while others decode: no gap between two tokens of theirs grows by
// more than was allowed.
BOOST_AUTO_TEST_CASE(a_long_prompt_delays_decodes_by_no_more_than_allowed) {
  for (const int delay_ms : {5, 20, 80}) {
    constexpr size_t kStages = 4;
    SequencerOptions options = options_of(kStages, long_prompt_cost(kStages));
    options.decode_delay_max = std::chrono::milliseconds(delay_ms);
    TimedChain chain(options, {kStages, long_prompt_cost(kStages)});
    for (uint64_t id = 1; id <= 16; ++id) chain.submit(id, 100, 400);
    const auto longest_gap_ms = [&](size_t first) {
      double longest = 0;
      for (uint64_t id = 1; id <= 16; ++id) {
        const std::vector<TimePoint>& times = chain.token_times[id];
        for (size_t i = std::max<size_t>(first, 1); i < times.size(); ++i)
          longest = std::max(longest, to_ms(times[i] - times[i - 1]));
      }
      return longest;
    };
    while (chain.token_times[16].size() < 100) BOOST_TEST_REQUIRE(chain.step());
    const double calm_ms = longest_gap_ms(50);
    const size_t calm_tokens = chain.token_times[1].size();
    chain.submit(99, kPromptTokens, 1);
    chain.run_dry();
    const double disturbed_ms = longest_gap_ms(calm_tokens);
    BOOST_TEST_MESSAGE(
        fmt::format("longest gap {:.2f} ms, with a long prompt {:.2f} ms ({} ms more allowed)",
                    calm_ms, disturbed_ms, delay_ms));
    BOOST_TEST(disturbed_ms <= calm_ms + delay_ms);
    BOOST_TEST(disturbed_ms > calm_ms);  // there was something to bound
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::graph
