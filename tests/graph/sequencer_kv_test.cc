// The sequencer's rules about KV blocks and time: prefix hits, shared prompts, preemption, chunks.
#include <algorithm>
#include <cmath>

#include "tests/graph/sequencer_lane.h"

namespace chainpump::graph {
namespace {

using namespace std::chrono_literals;

/// Takes part in everything and lets the rest follow: the first position of a request's first
/// slice.
int first_position_of(Lane& lane, Request r) {
  lane.submit(std::move(r));
  const auto microbatch = lane.form();
  BOOST_REQUIRE(microbatch.has_value());
  BOOST_REQUIRE(microbatch->slices.size() == 1u);
  const int first = microbatch->slices[0].first_position;
  lane.run_dry();
  return first;
}

SequencerOptions one_microbatch_options() {
  SequencerOptions options = small_options();
  options.prefill_chunk_tokens = 64;
  options.max_microbatch_tokens = 80;
  return options;
}

Request same(uint64_t id, int num_prompt, int max_new = 1) {
  Request r = request(0, num_prompt, max_new);
  r.id = RequestId(id);
  return r;
}

/// A pool that holds `num_blocks`, and sequences that each need all of it at their end.
SequencerOptions tight_options(int num_blocks) {
  SequencerOptions options = small_options();
  options.stages = {{"first", num_blocks}, {"second", num_blocks}};
  options.max_queued = 20;
  return options;
}

}  // namespace

BOOST_AUTO_TEST_CASE(sequencer_begins_after_a_cached_prefix) {
  Lane lane(one_microbatch_options());
  BOOST_TEST(first_position_of(lane, same(1, 16)) == 0);
  const struct {
    const char* what;
    int num_prompt;
    int first;
  } cases[] = {{"all but the last position", 16, 12}, {"the whole of it", 17, 16},
               {"a part of the last block", 19, 16},  {"a shorter one", 9, 8},
               {"within the first block", 4, 0},      {"one token", 1, 0}};
  uint64_t id = 1;
  for (const auto& c : cases)
    BOOST_TEST(first_position_of(lane, same(++id, c.num_prompt)) == c.first, c.what);

  Request other = same(++id, 16);
  other.cache_salt = 1;
  BOOST_TEST(first_position_of(lane, other) == 0);
  BOOST_TEST(first_position_of(lane, [&] {
               Request r = same(++id, 16);
               r.prompt[5] = 99;
               return r;
             }()) == 4);
  for (const int first_scored : {0, 3, 4, 11, 14}) {
    Request scored = same(++id, 16);
    scored.score.first_position = first_scored;
    BOOST_TEST(first_position_of(lane, scored) == first_scored / 4 * 4);
  }
  SequencerOptions options = one_microbatch_options();
  options.prefix_cache = false;
  Lane without(options);
  for (const uint64_t n : {1u, 2u}) BOOST_TEST(first_position_of(without, same(n, 16)) == 0);
}

BOOST_AUTO_TEST_CASE(sequencer_finds_what_was_generated_in_the_cache_too) {
  Lane lane(one_microbatch_options());
  Request first = same(1, 6, 12);
  first.sampling.seed = 5;
  BOOST_TEST(first_position_of(lane, first) == 0);
  const std::vector<TokenId> made = lane.tokens[1];
  BOOST_TEST_REQUIRE(made.size() == 12u);
  Request resumed = same(2, 6, 12);
  resumed.sampling.seed = 5;
  resumed.generated = {made.begin(), made.begin() + 8};
  BOOST_TEST(first_position_of(lane, resumed) == 12);  // of 14 known
  const std::vector<TokenId> rest(made.begin() + 8, made.end());
  BOOST_TEST(lane.tokens[2] == rest);
}

BOOST_AUTO_TEST_CASE(sequencer_may_share_a_block_from_the_next_microbatch_on) {
  Lane lane(one_microbatch_options());
  lane.submit(same(1, 16));
  lane.submit(same(2, 16));
  BOOST_TEST(lane.form()->slices.size() == 2u);  // side by side: neither has anything to share
  lane.submit(same(3, 16));
  BOOST_TEST(lane.form()->slices[0].first_position == 12);  // nothing has come back yet
  lane.run_dry();
}

BOOST_AUTO_TEST_CASE(sequencer_shares_the_prompt_between_choices) {
  for (const bool prefix_cache : {false, true}) {
    for (const int num_prompt : {1, 2, 8, 9, 10, 13}) {
      SequencerOptions options = small_options(3);
      options.prefix_cache = prefix_cache;
      Lane lane(options);
      Request four = request(1, num_prompt, 9);
      four.num_choices = 4;
      lane.submit(four);
      size_t num_copies = 0;
      size_t num_prompt_tokens = 0;
      while (!lane.sequencer.idle()) {
        while (const auto microbatch = lane.form()) {
          num_copies += microbatch->copies.size();
          for (const SequenceSlice& slice : microbatch->slices)
            if (slice.first_position < num_prompt) num_prompt_tokens += slice.tokens.size();
        }
        lane.take();
      }
      BOOST_TEST(lane.ended.size() == 4u);
      BOOST_TEST(num_copies == ((num_prompt - 1) % 4 == 0 ? 0u : 3u));
      BOOST_TEST(num_prompt_tokens == static_cast<size_t>(num_prompt) + 3);
    }
  }
}

BOOST_AUTO_TEST_CASE(sequencer_lets_the_next_choice_lead_when_the_leader_ends) {
  Lane lane(small_options());
  Request three = request(1, 20, 3);
  three.num_choices = 3;
  three.first_choice = 5;
  lane.submit(three);
  BOOST_TEST(lane.form()->descriptors[0].sequence_index == 5u);
  lane.sequencer.cancel(RequestId(1), 5);
  const auto microbatch = lane.form();
  BOOST_TEST_REQUIRE(microbatch->descriptors.size() == 1u);
  BOOST_TEST(microbatch->descriptors[0].sequence_index == 6u);
  BOOST_TEST(microbatch->slices[0].first_position == 8);  // what the first had sent
  lane.run_dry();
  BOOST_TEST_REQUIRE(lane.ended.size() == 2u);
  BOOST_TEST(lane.sequencer.stats().num_free_blocks == 40);
}

BOOST_AUTO_TEST_CASE(sequencer_preempts_the_youngest_of_the_lowest_priority) {
  for (const int low : {1, 2, 3}) {  // which request has the lower priority
    Lane lane(tight_options(16));
    for (uint64_t id = 1; id <= 3; ++id) {
      Request r = request(id, 9, 30);
      r.priority = static_cast<int>(id) == low ? -1 : 0;
      lane.submit(r);
    }
    while (lane.sequencer.stats().preemptions == 0) {
      while (lane.form()) continue;
      lane.take();
    }
    BOOST_TEST(lane.sequencer.stats().num_preempted_now == 1);
    while (lane.ended.empty()) {
      while (lane.form()) continue;
      lane.take();
    }
    BOOST_TEST(lane.ended[0].request.value == (low == 1 ? 2u : 1u));
    lane.run_dry();
    BOOST_TEST(lane.ended.size() == 3u);
    BOOST_TEST((lane.ended[2].request.value == static_cast<uint64_t>(low)));
    for (uint64_t id = 1; id <= 3; ++id) {  // and each made what it makes alone
      Lane alone(small_options());
      alone.submit(request(id, 9, 30));
      alone.run_dry();
      BOOST_TEST(lane.tokens[id] == alone.tokens[id]);
    }
  }
}

BOOST_AUTO_TEST_CASE(sequencer_makes_progress_with_room_for_one_sequence_only) {
  for (const bool prefix_cache : {false, true}) {
    for (const int num_choices : {1, 3}) {
      SequencerOptions options = tight_options(10);
      options.prefix_cache = prefix_cache;
      Lane lane(options);
      for (uint64_t id = 1; id <= 6; ++id) {
        Request r = request(id, 3, 38);  // 40 positions: the whole pool
        r.num_choices = num_choices;
        r.priority = static_cast<int>(id % 2);
        r.sampling.seed = id;
        lane.submit(r);
      }
      // The oldest of the highest priority is never thrown back: the others cost time, not it.
      int num_formed = 0;
      int num_described = 0;
      while (lane.ended.empty()) {
        while (const auto microbatch = lane.form()) {
          ++num_formed;
          for (const SequenceDescriptor& d : microbatch->descriptors)
            num_described += d.sampling.seed == 1 && d.sequence_index == 0 ? 1 : 0;
        }
        lane.take();
      }
      BOOST_TEST(num_described == 1);
      BOOST_TEST(lane.ended[0].request.value == 1u);
      BOOST_TEST(lane.ended[0].index == 0u);
      BOOST_TEST(num_formed < 3 * 40);
      lane.run_dry();
      BOOST_TEST(lane.ended.size() == static_cast<size_t>(6 * num_choices));
      BOOST_TEST(lane.sequencer.stats().num_free_blocks == 10);
    }
  }
}

BOOST_AUTO_TEST_CASE(sequencer_takes_what_was_in_flight_when_it_preempts) {
  SequencerOptions options = tight_options(4);
  options.context_tokens = 16;
  options.max_microbatches = 2;
  Lane lane(options);
  lane.submit(request(1, 4, 12));
  lane.submit(request(2, 1, 12));
  std::optional<Microbatch> preempting;
  while (true) {
    preempting = lane.form();
    if (lane.sequencer.stats().preemptions > 0) break;
    if (!preempting || lane.in_flight.size() == 2) lane.take();
  }
  // Whatever is on its way arrives, and then it is described anew with all of it.
  BOOST_TEST_REQUIRE(preempting->released.size() == 1u);
  std::vector<TokenId> made = lane.tokens[2];
  for (const StepResult& result : lane.in_flight)
    for (const TokenResult& token : result.tokens)
      if (token.id == preempting->released[0]) made.push_back(token.token);
  BOOST_TEST(made.size() == lane.tokens[2].size() + 1);
  std::optional<Microbatch> anew;
  while (!anew || anew->descriptors.empty()) {
    anew = lane.form();
    if (!anew) lane.take();
  }
  BOOST_TEST(lane.tokens[2] == made);
  BOOST_TEST(anew->descriptors[0].generated == made);
  lane.run_dry();
  BOOST_TEST(lane.tokens[2].size() == 12u);
}

BOOST_AUTO_TEST_CASE(sequencer_cuts_a_prompt_into_chunks_of_equal_time) {
  SequencerOptions options = small_options(4);
  options.context_tokens = 40000;
  options.prefill_chunk_tokens = 0;
  options.max_microbatch_tokens = 20000;
  options.stages.assign(4, {"stage", 10000});
  options.cost_prior = {300e-6, 8e-6, 0.26e-9};
  options.decode_delay_max = 20ms;
  const StepCost cost(options.cost_prior);
  StepWork whole;
  whole.add(32768, 0);
  const double work_s = cost.predict_s(whole) - 300e-6;
  const double wanted_s = 300e-6 + std::sqrt(300e-6 * work_s / 3);

  Lane lane(options);
  lane.submit(request(1, 32768, 2));
  for (int sent = 0, chunk = 0; sent < 32768; ++chunk) {
    const auto microbatch = lane.form();
    BOOST_TEST_REQUIRE(microbatch.has_value());
    StepWork work;
    work.add(microbatch->num_tokens(), sent);
    sent += microbatch->num_tokens();
    const double step_s = cost.predict_s(work);
    if (sent < 32768) BOOST_TEST(step_s == wanted_s, boost::test_tools::tolerance(0.01));
    BOOST_TEST((chunk > 0 || microbatch->num_tokens() > 200));
    if (lane.in_flight.size() == 5) lane.take();
  }
  while (!lane.in_flight.empty()) lane.take();

  // With one that decodes, a step may take what the decode takes and its part of the delay more.
  lane.run_dry();
  lane.submit(request(2, 4, 3000));
  lane.form();
  lane.take();
  Request second = request(3, 20000, 2);
  lane.submit(second);
  while (lane.tokens[3].empty()) {
    const auto microbatch = lane.form();
    if (!microbatch) {
      lane.take();
      continue;
    }
    StepWork work;
    StepWork decode;
    for (const SequenceSlice& slice : microbatch->slices) {
      const auto num_tokens = static_cast<int64_t>(slice.tokens.size());
      work.add(num_tokens, slice.first_position);
      if (num_tokens == 1) decode.add(1, slice.first_position);
    }
    BOOST_TEST(cost.predict_s(work) <= cost.predict_s(decode) + 0.020 / 5 + 1e-9);
  }
  lane.run_dry();
}

// Nothing bounds the time of its steps.
BOOST_AUTO_TEST_CASE(sequencer_of_one_stage_takes_as_many_prompt_tokens_as_fit) {
  SequencerOptions options = small_options(1);
  options.prefill_chunk_tokens = 0;
  options.cost_prior = {1e-3, 1e-5, 1e-9};
  options.max_microbatches = 3;
  Lane lane(options);
  lane.submit(request(1, 40, 2));
  for (const int num_tokens : {16, 16, 8}) {
    const auto microbatch = lane.form();
    BOOST_TEST_REQUIRE(microbatch.has_value());
    BOOST_TEST(microbatch->num_tokens() == num_tokens);
  }
}

BOOST_AUTO_TEST_CASE(sequencer_learns_what_steps_cost) {
  SequencerOptions options = small_options();
  options.prefill_chunk_tokens = 0;
  options.cost_prior = {1e-3, 1e-3, 0};
  Lane lane(options);
  for (uint64_t id = 1; id <= 8; ++id) lane.submit(request(id, 40, 20));
  while (!lane.sequencer.idle()) {
    std::deque<int> tokens;
    while (const auto microbatch = lane.form()) tokens.push_back(microbatch->num_tokens());
    if (lane.in_flight.empty()) break;
    while (!lane.in_flight.empty() && !tokens.empty()) {
      lane.take(std::chrono::microseconds(50 + 2 * tokens.front()));
      tokens.pop_front();
    }
    if (!lane.in_flight.empty()) lane.take();
  }
  const StepCost::Coefficients& learned = lane.sequencer.step_cost().coefficients();
  BOOST_TEST(learned.overhead_s == 50e-6, boost::test_tools::tolerance(0.1));
  BOOST_TEST(learned.token_s == 2e-6, boost::test_tools::tolerance(0.1));
}

}  // namespace chainpump::graph
