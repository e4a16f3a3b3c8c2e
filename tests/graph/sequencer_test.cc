#include "graph/sequencer.h"

#include <boost/test/unit_test.hpp>
#include <map>
#include <random>

namespace chainpump::graph {
namespace {

SequencerOptions small_options() {
  SequencerOptions options;
  options.num_stages = 2;
  options.context_tokens = 64;
  options.prefill_chunk_tokens = 8;
  options.max_microbatch_tokens = 16;
  options.max_sequences = 4;
  options.max_queued = 8;
  options.max_microbatches = 3;
  options.block_tokens = 4;
  options.num_kv_blocks = 40;
  options.vocabulary_size = 100;
  return options;
}

SequenceDescriptor descriptor(int num_prompt, int max_new) {
  SequenceDescriptor d;
  for (int i = 0; i < num_prompt; ++i) d.prompt.push_back(i % 100);
  d.sampling.max_new_tokens = max_new;
  return d;
}

/// The chain as the sequencer sees it: checks every microbatch against what came before, and
/// answers with a token that is a function of sequence and position.
class FakeChain {
 public:
  StepResult run(const Microbatch& microbatch) {
    StepResult result{.id = microbatch.id};
    for (const SequenceId id : microbatch.released) BOOST_TEST_REQUIRE(held_.erase(id) == 1u);
    for (const SequenceDescriptor& d : microbatch.descriptors) {
      BOOST_TEST_REQUIRE(held_.count(d.id) == 0u);
      held_[d.id].descriptor = d;
    }
    for (const SequenceSlice& slice : microbatch.slices) run_slice(slice, result);
    check_blocks();
    return result;
  }
  size_t num_held() const { return held_.size(); }

 private:
  struct Held {
    SequenceDescriptor descriptor;
    std::vector<KvBlockId> table;
    int length = 0;
    int generated = 0;
  };
  void run_slice(const SequenceSlice& slice, StepResult& result) {
    BOOST_TEST_REQUIRE(held_.count(slice.id) == 1u);
    Held& held = held_[slice.id];
    BOOST_TEST_REQUIRE(slice.first_position == held.length);
    BOOST_TEST_REQUIRE(slice.table_offset == static_cast<int>(held.table.size()));
    held.table.insert(held.table.end(), slice.new_blocks.begin(), slice.new_blocks.end());
    held.length += static_cast<int>(slice.tokens.size());
    BOOST_TEST_REQUIRE(held.length <= static_cast<int>(held.table.size()) * 4);
    const int first_score = held.descriptor.score.first_position;
    if (first_score >= 0)
      for (int p = slice.first_position; p < held.length; ++p)
        if (p >= first_score) result.scores.push_back({.id = slice.id, .position = p});
    if (!slice.sample) return;
    TokenResult token{.id = slice.id, .position = held.length};
    token.token =
        static_cast<TokenId>((slice.id.value * 31 + static_cast<uint64_t>(held.length)) % 100);
    if (++held.generated == held.descriptor.sampling.max_new_tokens)
      token.finish = FinishReason::length;
    result.tokens.push_back(token);
  }
  void check_blocks() {
    std::map<KvBlockId, int> owners;
    for (const auto& [id, held] : held_)
      for (const KvBlockId block : held.table) BOOST_TEST_REQUIRE(++owners[block] == 1);
  }
  std::map<SequenceId, Held> held_;
};

}  // namespace

BOOST_AUTO_TEST_CASE(sequencer_refuses_what_cannot_be_served) {
  Sequencer sequencer(small_options());
  const auto code = [&](SequenceDescriptor d) {
    const Result<SequenceId> id = sequencer.submit(std::move(d));
    return id.ok() ? "ok" : std::string(to_string(id.error().code));
  };
  BOOST_TEST(code(descriptor(0, 1)) == "invalid_argument");
  BOOST_TEST(code(descriptor(64, 1)) == "invalid_argument");  // no room for a new token
  SequenceDescriptor scored = descriptor(65, 1);
  scored.score.first_position = 0;
  BOOST_TEST(code(scored) == "invalid_argument");  // as much as a frame's descriptor may carry
  SequenceDescriptor foreign = descriptor(3, 1);
  foreign.prompt[1] = 100;
  BOOST_TEST(code(foreign) == "invalid_argument");
  SequenceDescriptor nothing_to_score = descriptor(3, 1);
  nothing_to_score.score.first_position = 2;
  BOOST_TEST(code(nothing_to_score) == "invalid_argument");
  for (int i = 0; i < 8; ++i) BOOST_TEST(code(descriptor(3, 1)) == "ok");
  BOOST_TEST(code(descriptor(3, 1)) == "overloaded");
}

BOOST_AUTO_TEST_CASE(sequencer_pipelines_the_chunks_of_one_prompt) {
  Sequencer sequencer(small_options());
  BOOST_TEST_REQUIRE(sequencer.submit(descriptor(20, 2)).ok());
  FakeChain chain;
  std::vector<StepResult> results;
  for (const size_t num_tokens : {8u, 8u, 4u}) {
    const auto microbatch = sequencer.next();
    BOOST_TEST_REQUIRE(microbatch.has_value());
    BOOST_TEST_REQUIRE(microbatch->slices.size() == 1u);
    BOOST_TEST(microbatch->slices[0].tokens.size() == num_tokens);
    BOOST_TEST(microbatch->slices[0].sample == (num_tokens == 4));
    BOOST_TEST(microbatch->descriptors.size() == (results.empty() ? 1u : 0u));
    results.push_back(chain.run(*microbatch));
  }
  BOOST_TEST(!sequencer.next().has_value());
  Deliveries out;
  BOOST_TEST(!sequencer.on_result(results[1], out).ok());  // not the oldest
  for (const StepResult& result : results)
    BOOST_TEST_REQUIRE(sequencer.on_result(result, out).ok());
  BOOST_TEST_REQUIRE(out.tokens.size() == 1u);
  BOOST_TEST(out.tokens[0].position == 20);
  const auto decode = sequencer.next();
  BOOST_TEST_REQUIRE(decode.has_value());
  BOOST_TEST(decode->slices[0].first_position == 20);
  BOOST_TEST(decode->slices[0].tokens == std::vector<TokenId>{out.tokens[0].token});
}

BOOST_AUTO_TEST_CASE(sequencer_cuts_a_generation_to_the_context) {
  Sequencer sequencer(small_options());
  BOOST_TEST_REQUIRE(sequencer.submit(descriptor(60, 1000)).ok());
  const auto microbatch = sequencer.next();
  BOOST_TEST_REQUIRE(microbatch.has_value());
  BOOST_TEST(microbatch->descriptors[0].sampling.max_new_tokens == 5);
}

BOOST_AUTO_TEST_CASE(sequencer_tells_every_stage_what_it_may_forget) {
  Sequencer sequencer(small_options());
  const SequenceId id = *sequencer.submit(descriptor(4, 8));
  FakeChain chain;
  const StepResult late = chain.run(*sequencer.next());
  sequencer.cancel(id);
  sequencer.cancel(id);
  BOOST_TEST(sequencer.num_free_blocks() == 40);
  const StepResult released = chain.run(*sequencer.next());
  BOOST_TEST(chain.num_held() == 0u);
  Deliveries out;
  BOOST_TEST_REQUIRE(sequencer.on_result(late, out).ok());
  BOOST_TEST_REQUIRE(sequencer.on_result(released, out).ok());
  BOOST_TEST(out.tokens.empty());
  BOOST_TEST(sequencer.idle());
}

/// Random submits, cancels and delays: every request ends, blocks and positions stay right, and
/// each sequence's tokens are those it gets alone.
BOOST_AUTO_TEST_CASE(sequencer_keeps_its_books_under_random_load) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    Sequencer sequencer(small_options());
    FakeChain chain;
    std::deque<StepResult> in_flight;
    std::map<SequenceId, int> expected;
    std::map<SequenceId, int> tokens;
    size_t num_finished = 0;
    size_t num_ended = 0;
    int to_submit = 30;
    for (int step = 0; step < 20000 && (to_submit > 0 || !sequencer.idle()); ++step) {
      const uint32_t dice = random() % 8;
      if (dice == 0 && to_submit > 0) {
        SequenceDescriptor d =
            descriptor(1 + static_cast<int>(random() % 40), 1 + static_cast<int>(random() % 20));
        const bool scoring = random() % 4 == 0 && d.prompt.size() > 1;
        if (scoring) d.score.first_position = static_cast<int>(random() % (d.prompt.size() - 1));
        const int due = scoring ? static_cast<int>(d.prompt.size()) - 1 - d.score.first_position
                                : d.sampling.max_new_tokens;
        const Result<SequenceId> id = sequencer.submit(std::move(d));
        if (id.ok()) {
          expected[*id] = due;
          --to_submit;
        }
      } else if (dice == 1 && random() % 8 == 0 && !expected.empty()) {
        auto victim = expected.begin();
        std::advance(victim, random() % expected.size());
        sequencer.cancel(victim->first);
        expected.erase(victim);
        ++num_ended;
      } else if (dice < 5) {
        if (auto microbatch = sequencer.next()) {
          BOOST_TEST_REQUIRE(microbatch->num_tokens() <= 16);
          in_flight.push_back(chain.run(*microbatch));
        }
      } else if (!in_flight.empty()) {
        Deliveries out;
        BOOST_TEST_REQUIRE(sequencer.on_result(in_flight.front(), out).ok());
        in_flight.pop_front();
        for (const TokenResult& t : out.tokens) ++tokens[t.id];
        for (const ScoreResult& s : out.scores) ++tokens[s.id];
        for (const auto& [id, reason] : out.finished) {
          BOOST_TEST_REQUIRE(expected.count(id) == 1u);
          BOOST_TEST_REQUIRE(tokens[id] == expected[id]);
          expected.erase(id);
          ++num_finished;
        }
      }
    }
    BOOST_TEST_REQUIRE(sequencer.idle());
    BOOST_TEST_REQUIRE(expected.empty());
    BOOST_TEST_REQUIRE(num_finished + num_ended == 30u);
    BOOST_TEST_REQUIRE(chain.num_held() == 0u);
    BOOST_TEST_REQUIRE(sequencer.num_free_blocks() == 40);
  }
}

}  // namespace chainpump::graph
