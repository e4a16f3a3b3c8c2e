// The sequencer's rules, one by one. Every microbatch goes through a chain that checks what is read
// and written (tests/fakes/kv_chain.h).
#include "graph/sequencer.h"

#include <algorithm>
#include <numeric>

#include "tests/graph/sequencer_lane.h"

namespace chainpump::graph {
namespace {

using namespace std::chrono_literals;
using fakes::why;

std::string code_of(const Status& status) {
  return status.ok() ? "ok" : std::string(to_string(status.error().code));
}

}  // namespace

BOOST_AUTO_TEST_CASE(sequencer_refuses_what_can_never_be_served) {
  const struct {
    const char* what;
    void (*spoil)(Request&);
    const char* message;
  } cases[] = {
      {"no prompt", [](Request& r) { r.prompt.clear(); }, "no tokens"},
      {"no room for a new token", [](Request& r) { r.prompt.resize(64); }, "serves 64 in all"},
      {"more than a descriptor may carry",
       [](Request& r) {
         r.prompt.resize(65);
         r.score.first_position = 0;
       },
       "serves 64 in all"},
      {"a foreign token", [](Request& r) { r.prompt[1] = 100; }, "prompt token 100"},
      {"a foreign generated token", [](Request& r) { r.generated = {-1}; }, "generated token -1"},
      {"nothing to score", [](Request& r) { r.score.first_position = 2; }, "nothing to score"},
      {"no choice", [](Request& r) { r.num_choices = 0; }, "n is 0"},
      {"too many choices", [](Request& r) { r.num_choices = 9; }, "n is 9"},
      {"choices of a score",
       [](Request& r) {
         r.num_choices = 2;
         r.score.first_position = 0;
       },
       "several choices"},
      {"choices that go on",
       [](Request& r) {
         r.num_choices = 2;
         r.generated = {1};
       },
       "several choices"},
      {"all was generated",
       [](Request& r) {
         r.generated = {1, 2};
       },
       "nothing is left"},
      {"no weight", [](Request& r) { r.tenant_weight = 0; }, "weight"},
      {"sampling", [](Request& r) { r.sampling.top_p = 2; }, "top_p"},
  };
  Sequencer sequencer(small_options());
  for (const auto& c : cases) {
    Request spoilt = request(1, 3, 2);
    c.spoil(spoilt);
    const Status refused = sequencer.submit(std::move(spoilt), {});
    BOOST_TEST(code_of(refused) == "invalid_argument", c.what);
    BOOST_TEST(why(refused).find(c.message) != std::string::npos, why(refused));
  }
  BOOST_TEST(sequencer.idle());
  BOOST_TEST(sequencer.submit(request(1, 3, 2), {}).ok());
  BOOST_TEST(code_of(sequencer.submit(request(1, 3, 2), {})) == "invalid_argument");  // again
  Request late = request(2, 3, 2);
  late.deadline = TimePoint{5ms};
  BOOST_TEST(code_of(sequencer.submit(late, TimePoint{5ms})) == "deadline_exceeded");

  SequencerOptions options = small_options();
  options.stages = {{"wide", 100}, {"narrow", 5}};
  Sequencer narrow(options);
  BOOST_TEST(narrow.submit(request(1, 10, 11), {}).ok());
  const Status refused = narrow.submit(request(2, 10, 12), {});
  BOOST_TEST(why(refused).find("need 6 KV blocks, but narrow has 5") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(sequencer_refuses_when_full_and_says_where_and_until_when) {
  SequencerOptions options = small_options();
  options.stages = {{"wide", 100}, {"narrow", 16}};
  options.max_queued = 3;
  options.max_sequences = 2;
  Lane lane(options);
  for (uint64_t id = 1; id <= 3; ++id) lane.submit(request(id, 8, 4));
  const Status unknown = lane.sequencer.submit(request(9, 8, 4), {});
  BOOST_TEST(code_of(unknown) == "overloaded");
  BOOST_TEST((lane.sequencer.retry_after() >= 10ms));
  lane.form();  // one of them runs
  lane.submit(request(4, 8, 4));
  Request two = request(5, 8, 4);
  two.num_choices = 2;
  BOOST_TEST(code_of(lane.sequencer.submit(two, {})) == "overloaded");  // all of it or nothing
  while (lane.ended.size() < 2) {
    while (lane.form()) continue;
    lane.now = lane.now + 100ms;
    lane.take();
  }
  for (uint64_t id = 10; id <= 12; ++id) (void)lane.sequencer.submit(request(id, 8, 4), lane.now);
  const Status full = lane.sequencer.submit(request(20, 8, 4), lane.now);
  BOOST_TEST(code_of(full) == "overloaded");
  BOOST_TEST(why(full).find("is full: 1 sequences run") != std::string::npos, why(full));
  BOOST_TEST(why(full).find("; retry after ") != std::string::npos, why(full));
  BOOST_TEST((lane.sequencer.retry_after() > 50ms && lane.sequencer.retry_after() < 60s));
  lane.run_dry();

  options.max_sequences = 8;
  Lane short_of_blocks(options);  // 16 blocks: for two with 24 tokens and more, and no third
  for (uint64_t id = 1; id <= 3; ++id) short_of_blocks.submit(request(id, 24, 20));
  for (int i = 0; i < 12; ++i) {
    short_of_blocks.form();
    short_of_blocks.take();
  }
  BOOST_TEST(short_of_blocks.sequencer.stats().num_running == 2);
  for (uint64_t id = 4; id <= 5; ++id) short_of_blocks.submit(request(id, 24, 20));
  const Status narrow = short_of_blocks.sequencer.submit(request(6, 24, 20), {});
  BOOST_TEST(why(narrow).find("narrow is full") == 0u, why(narrow));
}

BOOST_AUTO_TEST_CASE(sequencer_pipelines_the_chunks_of_one_prompt) {
  Lane lane(small_options());
  lane.submit(request(1, 20, 2));
  int num_formed = 0;
  for (const size_t num_tokens : {8u, 8u, 4u}) {
    const auto microbatch = lane.form();
    BOOST_TEST_REQUIRE(microbatch.has_value());
    BOOST_TEST_REQUIRE(microbatch->slices.size() == 1u);
    BOOST_TEST(microbatch->slices[0].tokens.size() == num_tokens);
    BOOST_TEST(microbatch->slices[0].sample == (num_tokens == 4));
    BOOST_TEST(microbatch->descriptors.size() == (num_formed++ == 0 ? 1u : 0u));
  }
  BOOST_TEST(!lane.form().has_value());
  Deliveries out;
  BOOST_TEST(!lane.sequencer.on_result(lane.in_flight[1], {}, out).ok());  // not the oldest
  lane.take();
  lane.take();
  out = lane.take();
  BOOST_TEST_REQUIRE(out.tokens.size() == 1u);
  BOOST_TEST(out.tokens[0].token.position == 20);
  const auto decode = lane.form();
  BOOST_TEST_REQUIRE(decode.has_value());
  BOOST_TEST(decode->slices[0].first_position == 20);
  BOOST_TEST(decode->slices[0].tokens == std::vector<TokenId>{out.tokens[0].token.token});
}

BOOST_AUTO_TEST_CASE(sequencer_counts_and_learns_nothing_of_a_canary) {
  Lane lane(small_options());
  const double predicted = lane.sequencer.step_cost().predict_s({.tokens = 1, .attended = 1});
  const auto cross = [&] {
    Request canary = request(99, 1, 1);
    canary.canary = true;
    lane.submit(std::move(canary));
    const auto sent = lane.form();
    BOOST_TEST_REQUIRE(sent.has_value());
    BOOST_TEST(sent->canary);
    BOOST_TEST(lane.take(1s).crossed);
    const auto forgotten = lane.form();
    BOOST_TEST_REQUIRE(forgotten.has_value());
    BOOST_TEST(forgotten->canary);
    BOOST_TEST(forgotten->slices.empty());
    BOOST_TEST(!lane.take(1s).crossed);  // no token was in it
    BOOST_TEST(lane.sequencer.idle());
  };
  cross();
  cross();
  BOOST_TEST(lane.sequencer.step_cost().predict_s({.tokens = 1, .attended = 1}) == predicted);
  BOOST_TEST(lane.sequencer.stats().num_cached_blocks == 0);
  // Others, even beside one, are anybody's.
  lane.submit(request(1, 2, 1));
  Request canary = request(2, 1, 1);
  canary.canary = true;
  lane.submit(std::move(canary));
  const auto both = lane.form();
  BOOST_TEST_REQUIRE(both.has_value());
  BOOST_TEST(!both->canary);
  BOOST_TEST(lane.take().crossed);
}

BOOST_AUTO_TEST_CASE(sequencer_ends_what_fails_and_nothing_else) {
  Lane lane(small_options());
  lane.submit(request(1, 2, 3));
  Request scored = request(2, 6, 1);
  scored.score.first_position = 2;
  lane.submit(scored);
  lane.submit(request(3, 2, 1));
  std::vector<EndDelivery> ends;
  std::vector<int32_t> scores;
  std::optional<SequenceId> bad;  // the first one described
  while (const auto formed = lane.form()) {
    if (!bad) bad = formed->descriptors.at(0).id;
    for (TokenResult& token : lane.in_flight.front().tokens)
      if (token.id == *bad) token.finish = FinishReason::failed;
    for (ScoreResult& score : lane.in_flight.front().scores) score.failed = score.position >= 3;
    Deliveries out = lane.take();
    for (const ScoreDelivery& score : out.scores) scores.push_back(score.score.position);
    ends.insert(ends.end(), out.ended.begin(), out.ended.end());
  }
  BOOST_TEST(scores == std::vector<int32_t>{2});
  BOOST_TEST_REQUIRE(ends.size() == 3u);
  for (const EndDelivery& end : ends) {
    const uint64_t id = end.choice.request.value;
    BOOST_TEST(end.how.ok() == (id == 3));
    if (id != 3) {
      BOOST_TEST((end.how.error().code == ErrorCode::internal));
      BOOST_TEST(why(end.how).find(id == 1 ? "position 1" : "position 3") != std::string::npos);
    }
  }
  BOOST_TEST(lane.tokens.count(1) == 0u);
  BOOST_TEST(lane.tokens[3].size() == 1u);
  BOOST_TEST(lane.sequencer.idle());
}

BOOST_AUTO_TEST_CASE(sequencer_refuses_results_that_make_no_sense) {
  Lane lane(small_options());
  lane.submit(request(1, 4, 4));
  const SequenceId id = lane.form()->slices[0].id;
  const StepResult good = lane.in_flight.front();
  for (int i = 0; i < 3; ++i) {
    StepResult bad = good;
    if (i == 0) bad.tokens[0].position = 5;
    if (i == 1) bad.tokens.push_back(bad.tokens[0]);  // twice
    if (i == 2) bad.scores.push_back({.id = id, .position = 0});
    Sequencer again(lane.options);
    BOOST_TEST(again.submit(request(1, 4, 4), {}).ok());
    BOOST_TEST((again.next()->slices[0].id == id));
    Deliveries out;
    BOOST_TEST(code_of(again.on_result(bad, {}, out)) == "internal");
  }
}

BOOST_AUTO_TEST_CASE(sequencer_cuts_a_generation_to_the_context) {
  Lane lane(small_options());
  lane.submit(request(1, 60, 1000));
  BOOST_TEST(lane.form()->descriptors[0].sampling.max_new_tokens == 5);
  lane.run_dry();
  BOOST_TEST(lane.tokens[1].size() == 5u);
}

BOOST_AUTO_TEST_CASE(sequencer_ids_and_blocks_are_its_lane_s_own) {
  SequencerOptions options = small_options();
  options.lane = 3;
  options.first_kv_block = 1000;
  Lane lane(options);
  lane.submit(request(1, 20, 4));
  const auto microbatch = lane.form();
  BOOST_TEST((microbatch->slices[0].id.value >> 56 == 3u));
  for (const KvBlockId block : microbatch->slices[0].new_blocks)
    BOOST_TEST((block.value >= 1000 && block.value < 1040));
  lane.run_dry();
}

BOOST_AUTO_TEST_CASE(sequencer_frees_what_is_cancelled_in_the_next_microbatch) {
  for (const bool one_choice : {false, true}) {
    Lane lane(small_options());
    Request two = request(1, 6, 8);
    two.num_choices = 2;
    lane.submit(two);
    lane.form();
    lane.form();
    BOOST_TEST(lane.chain.num_held() == 2u);
    if (one_choice) lane.sequencer.cancel(RequestId(1), 0);
    if (!one_choice) lane.sequencer.cancel(RequestId(1));
    lane.sequencer.cancel(RequestId(1), 0);  // again: ignored
    lane.sequencer.cancel(RequestId(7));
    const auto empty = lane.form();
    BOOST_TEST_REQUIRE(empty.has_value());
    BOOST_TEST(empty->slices.empty());
    BOOST_TEST(lane.chain.num_held() == (one_choice ? 1u : 0u));
    BOOST_TEST(lane.take().tokens.empty());  // on its way when it was cancelled
    lane.run_dry();
    BOOST_TEST(lane.ended.size() == (one_choice ? 1u : 0u));
    BOOST_TEST(lane.sequencer.idle());
    BOOST_TEST(lane.sequencer.stats().num_free_blocks == 40);
  }
}

BOOST_AUTO_TEST_CASE(sequencer_spreads_decodes_over_the_chain) {
  SequencerOptions options = small_options(4);
  options.max_sequences = 16;
  options.max_queued = 16;
  options.stages.assign(4, {"stage", 200});
  for (const int num_sequences : {3, 8, 9}) {
    Lane lane(options);
    for (int i = 1; i <= num_sequences; ++i) lane.submit(request(static_cast<uint64_t>(i), 1, 40));
    while (lane.form()) continue;
    while (!lane.in_flight.empty()) lane.take();
    std::vector<size_t> sizes;
    while (const auto microbatch = lane.form()) sizes.push_back(microbatch->slices.size());
    BOOST_TEST(sizes.size() == static_cast<size_t>(std::min(num_sequences, 4)));
    BOOST_TEST(std::accumulate(sizes.begin(), sizes.end(), size_t{0}) ==
               static_cast<size_t>(num_sequences));
    const auto [least, most] = std::minmax_element(sizes.begin(), sizes.end());
    BOOST_TEST(*most - *least <= 1u);
    // And so they stay.
    for (int i = 0; i < 12; ++i) {
      lane.take();
      const auto microbatch = lane.form();
      BOOST_TEST_REQUIRE(microbatch.has_value());
      BOOST_TEST(microbatch->slices.size() >= *least);
      BOOST_TEST(microbatch->slices.size() <= *most);
    }
  }
}

BOOST_AUTO_TEST_CASE(sequencer_ends_what_is_past_its_deadline) {
  Lane lane(small_options());
  BOOST_TEST(!lane.sequencer.next_deadline().has_value());
  Request running = request(1, 4, 50);
  running.deadline = TimePoint{20ms};
  Request waiting = request(2, 4, 50);
  waiting.deadline = TimePoint{10ms};
  waiting.num_choices = 2;
  lane.submit(running);
  lane.form();
  lane.take();
  lane.submit(waiting);
  BOOST_TEST((lane.sequencer.next_deadline() == TimePoint{10ms}));
  Deliveries out;
  lane.sequencer.on_time(TimePoint{9ms}, out);
  BOOST_TEST(out.ended.empty());
  lane.sequencer.on_time(TimePoint{10ms}, out);
  BOOST_TEST_REQUIRE(out.ended.size() == 2u);
  BOOST_TEST((out.ended[0].how.error().code == ErrorCode::deadline_exceeded));
  lane.sequencer.on_time(TimePoint{30ms}, out);
  BOOST_TEST_REQUIRE(out.ended.size() == 3u);
  BOOST_TEST(out.ended[2].how.error().message.find("1 tokens were") != std::string::npos);
  lane.run_dry();
  BOOST_TEST(lane.chain.num_held() == 0u);
  BOOST_TEST(!lane.sequencer.next_deadline().has_value());
}

BOOST_AUTO_TEST_CASE(sequencer_serves_priorities_first_and_tenants_by_weight) {
  SequencerOptions options = small_options();
  options.max_sequences = 1;
  options.max_queued = 100;
  Lane lane(options);
  for (uint64_t id = 1; id <= 60; ++id) {
    Request r = request(id, 4, 4);
    r.tenant = TenantId(static_cast<uint32_t>(id % 2));
    r.tenant_weight = id % 2 == 0 ? 1 : 2;
    r.priority = id > 50 ? 1 : 0;
    lane.submit(r);
  }
  lane.run_dry();
  BOOST_TEST_REQUIRE(lane.ended.size() == 60u);
  for (size_t i = 0; i < 60; ++i) BOOST_TEST((lane.ended[i].request.value > 50) == (i < 10));
  int of_heavy = 0;
  for (size_t i = 10; i < 40; ++i) of_heavy += static_cast<int>(lane.ended[i].request.value % 2);
  BOOST_TEST((of_heavy >= 19 && of_heavy <= 21));
}

BOOST_AUTO_TEST_CASE(sequencer_keeps_a_microbatch_s_metadata_within_its_slot) {
  SequencerOptions options = small_options();
  options.prefill_chunk_tokens = 16;
  options.max_metadata_bytes = 760;
  Lane lane(options);
  for (uint64_t id = 1; id <= 4; ++id) lane.submit(request(id, 4, 2));
  for (int i = 0; i < 2; ++i) {
    const auto microbatch = lane.form();
    BOOST_TEST_REQUIRE(microbatch.has_value());
    BOOST_TEST(microbatch->descriptors.size() == 2u);  // of four that would fit by their tokens
    std::vector<std::byte> bytes;
    encode(*microbatch, bytes);
    BOOST_TEST(static_cast<int64_t>(bytes.size()) <= options.max_metadata_bytes);
  }
  lane.run_dry();
  Request wordy = request(9, 4, 2);
  wordy.sampling.stop.emplace_back(500, 'x');
  const Status refused = lane.sequencer.submit(wordy, {});
  BOOST_TEST(code_of(refused) == "invalid_argument");
  BOOST_TEST(why(refused).find("a frame carries 760") != std::string::npos, why(refused));
}

}  // namespace chainpump::graph
