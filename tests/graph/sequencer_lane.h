// A sequencer and a chain that checks what is read and written (tests/fakes/kv_chain.h), for the
// tests of the sequencer's rules. One thread.
#pragma once

#include <boost/test/unit_test.hpp>
#include <deque>
#include <map>

#include "graph/sequencer.h"
#include "tests/fakes/kv_chain.h"
#include "tests/fakes/why.h"

namespace chainpump::graph {

inline SequencerOptions small_options(int num_stages = 2) {
  SequencerOptions options;
  for (int i = 0; i < num_stages; ++i) options.stages.push_back({fmt::format("stage {}", i), 40});
  options.context_tokens = 64;
  options.prefill_chunk_tokens = 8;
  options.max_microbatch_tokens = 16;
  options.max_sequences = 4;
  options.max_queued = 8;
  options.max_microbatches = num_stages + 1;
  options.block_tokens = 4;
  options.vocabulary_size = 100;
  return options;
}

inline Request request(uint64_t id, int num_prompt, int max_new) {
  Request r;
  r.id = RequestId(id);
  for (int i = 0; i < num_prompt; ++i) r.prompt.push_back((i * 3 + static_cast<int>(id)) % 100);
  r.sampling.max_new_tokens = max_new;
  r.sampling.ignore_eos = true;
  return r;
}

/// A sequencer and its chain; results come when they are asked for.
struct Lane {
  SequencerOptions options;
  Sequencer sequencer;
  fakes::KvChain chain;
  TimePoint now;
  std::deque<StepResult> in_flight;
  std::map<uint64_t, std::vector<TokenId>> tokens;  // of first choices, by request
  std::vector<Choice> ended;

  explicit Lane(const SequencerOptions& o)
      : options(o),
        sequencer(o),
        chain({.block_tokens = o.block_tokens,
               .first_block = o.first_kv_block,
               .num_blocks = o.stages[0].num_kv_blocks,
               .max_sequences = o.max_sequences,
               .max_tokens = o.max_microbatch_tokens,
               .vocabulary_size = o.vocabulary_size}) {}

  void submit(Request r) {
    const Status taken = sequencer.submit(std::move(r), now);
    BOOST_REQUIRE_MESSAGE(taken.ok(), fakes::why(taken));
  }
  std::optional<Microbatch> form() {
    std::optional<Microbatch> microbatch = sequencer.next();
    if (!microbatch) return microbatch;
    Result<StepResult> result = chain.run(*microbatch);
    BOOST_REQUIRE_MESSAGE(result.ok(), fakes::why(result));
    in_flight.push_back(std::move(*result));
    return microbatch;
  }
  Deliveries take(Duration slowest = Duration(0)) {
    Deliveries out;
    BOOST_REQUIRE(!in_flight.empty());
    in_flight.front().slowest = slowest;
    const Status taken = sequencer.on_result(in_flight.front(), now, out);
    BOOST_REQUIRE_MESSAGE(taken.ok(), fakes::why(taken));
    in_flight.pop_front();
    for (const TokenDelivery& token : out.tokens)
      tokens[token.choice.request.value].push_back(token.token.token);
    for (const EndDelivery& end : out.ended) ended.push_back(end.choice);
    return out;
  }
  /// Runs until nothing is left; returns how many microbatches that took.
  int run_dry() {
    for (int count = 0;; ++count) {
      BOOST_REQUIRE(count < 10000);
      while (form()) continue;
      if (in_flight.empty()) return count;
      take();
    }
  }
};

}  // namespace chainpump::graph
