// The first stage of a chain is lost, and with it the sequencer. A new one finds what the others
// hold of sequences that it never saw: whoever asks again finds his own there, whoever does not is
// forgotten.
#include <boost/test/unit_test.hpp>

#include "tests/actors/repairs.h"

namespace chainpump::actors {
namespace {

/// As a coordinator would after the loss of the first stage, and some others: they are linked and
/// resumed, and nobody has asked again yet.
void replace_first(Chain& chain, std::set<size_t> dead = {0}) {
  chain.lose(dead);
  std::vector<graph::StageHoldings> holdings;
  for (size_t i = 1; i < chain.loops.size(); ++i)
    if (!dead.contains(i)) holdings.push_back(chain.loops[i]->holdings());
  chain.link_all();
  chain.first().hold();
  chain.first().resume(holdings);
}

/// Nobody will ask for what is left.
void give_up_orphans(Chain& chain) {
  graph::Deliveries none;
  chain.first().sequencer().on_time(steady_clock().now() + std::chrono::seconds(6), none);
  BOOST_REQUIRE(chain.run_dry().ok());
}

bool has_ended(const Chain& chain, const Asked& asked) {
  const auto made = chain.tokens.find(asked.id);
  return made != chain.tokens.end() && made->second.size() == static_cast<size_t>(asked.max_new);
}

graph::Request again(Chain& chain, const Asked& asked) {
  graph::Request request;
  request.id = asked.id;
  request.identity = asked.id.value;
  for (int32_t i = 0; i < asked.num_prompt; ++i) request.prompt.push_back((i * 11 + 3) % 80);
  request.generated = chain.tokens[asked.id];
  request.readmitted = true;
  request.sampling.max_new_tokens = asked.max_new;
  return request;
}

void ask_again(Chain& chain, const Asked& asked) {
  if (has_ended(chain, asked)) return;
  const Status taken = chain.first().sequencer().submit(again(chain, asked), steady_clock().now());
  BOOST_REQUIRE_MESSAGE(taken.ok(), fakes::why(taken));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(stage_adopt)

/// Whoever asked asks again, with what came so far. The others hold what they held, and compute
/// again at most the position whose token nobody was told.
BOOST_AUTO_TEST_CASE(the_first_stage) {
  uint64_t adopted = 0;
  for (int before = 0; before < 60; before += 3) {
    Chain chain(3, {.replay_log_bytes = kLogAll});
    const std::vector<Asked> asked = submit_some(chain);
    step_all(chain, before);
    replace_first(chain);
    size_t most = 0;  // that either of the others is to compute, by then
    for (const Asked& each : asked) {
      most += each.num_positions() + (has_ended(chain, each) ? 0 : 1);
      ask_again(chain, each);
    }
    BOOST_REQUIRE(chain.run_dry().ok());
    give_up_orphans(chain);
    check_answers(chain, asked);
    adopted += chain.first().sequencer().stats().sequences_adopted;
    for (const size_t stage : {1, 2}) BOOST_TEST(chain.executors[stage]->num_computed() <= most);
  }
  BOOST_TEST(adopted > 30u);
}

/// And one of the others with it; the third holds what it held.
BOOST_AUTO_TEST_CASE(the_first_stage_and_another) {
  for (const size_t other : {1, 2})
    for (int before = 1; before < 60; before += 4) {
      Chain chain(3, {.replay_log_bytes = kLogAll});
      const std::vector<Asked> asked = submit_some(chain);
      step_all(chain, before);
      replace_first(chain, {0, other});
      for (const Asked& each : asked) ask_again(chain, each);
      BOOST_REQUIRE(chain.run_dry().ok());
      give_up_orphans(chain);
      check_answers(chain, asked);
    }
}

/// While some have asked again, and been filled more or less, and others have not.
BOOST_AUTO_TEST_CASE(another_stage_while_some_have_asked_again) {
  for (const size_t other : {0, 1, 2})
    for (int between = 0; between < 12; ++between) {
      Chain chain(3, {.replay_log_bytes = kLogAll});
      const std::vector<Asked> asked = submit_some(chain);
      step_all(chain, 25);
      replace_first(chain);
      for (size_t i = 0; i < 2; ++i) ask_again(chain, asked[i]);
      step_all(chain, between);
      const FakeExecutor& alive = *chain.executors[other == 1 ? 2 : 1];
      size_t most = alive.num_computed();
      if (other == 0) {
        replace_first(chain);
      } else {
        chain.lose({other});
        chain.repair({other});
      }
      for (size_t i = 0; i < asked.size(); ++i) {
        most += static_cast<size_t>(asked[i].max_new);
        if (i > 1 || other == 0) ask_again(chain, asked[i]);
      }
      BOOST_REQUIRE(chain.run_dry().ok());
      give_up_orphans(chain);
      check_answers(chain, asked);
      BOOST_TEST(alive.num_computed() <= most);  // it holds all prompts still
    }
}

BOOST_AUTO_TEST_CASE(who_never_asks_again_is_forgotten_and_so_is_who_asks_as_somebody_else) {
  Chain chain(3, {.replay_log_bytes = kLogAll});
  const std::vector<Asked> asked = submit_some(chain);
  step_all(chain, 25);
  replace_first(chain);
  BOOST_TEST(chain.first().sequencer().stats().num_free_blocks < kNumBlocks);
  BOOST_REQUIRE(chain.first().sequencer().next_deadline());
  graph::Request stranger = again(chain, asked[3]);
  stranger.identity = 4711;
  BOOST_REQUIRE(chain.first().sequencer().submit(stranger, steady_clock().now()).ok());
  BOOST_REQUIRE(chain.run_dry().ok());
  BOOST_TEST(chain.first().sequencer().stats().sequences_adopted == 0u);
  BOOST_TEST(chain.tokens[asked[3].id] == chain.expected(asked[3].num_prompt, asked[3].max_new));
  give_up_orphans(chain);
  BOOST_TEST(!chain.first().sequencer().next_deadline());
  BOOST_TEST(chain.first().sequencer().stats().num_free_blocks == kNumBlocks);
  for (const auto& executor : chain.executors)
    BOOST_TEST(executor->sequences().num_sequences() == 0u);
}

/// Others need the room: orphans go before anybody waits for it.
BOOST_AUTO_TEST_CASE(orphans_give_way) {
  graph::SequencerOptions options = chain_sequencer_options(2);
  for (graph::StageRoom& stage : options.stages) stage.num_kv_blocks = 8;
  graph::Sequencer sequencer(options);
  graph::StageHoldings stage{.stage = StageIndex(1), .held = {}, .logged = {}};
  const SequenceId orphan(1 << 20);
  stage.held.push_back({orphan, 5 * kKvBlockTokens, 7, 0, {}});
  for (int32_t block = 2; block < 7; ++block) stage.held[0].table.emplace_back(block);
  sequencer.adopt({&stage, 1}, TimePoint{});
  BOOST_TEST(sequencer.stats().num_free_blocks == 3);
  graph::Request request;
  request.id = RequestId(1);
  request.prompt.assign(4 * kKvBlockTokens, 1);
  request.sampling.max_new_tokens = 2;
  BOOST_REQUIRE(sequencer.submit(request, TimePoint{}).ok());
  const std::optional<graph::Microbatch> microbatch = sequencer.next();
  BOOST_REQUIRE(microbatch);
  BOOST_TEST(!microbatch->slices.empty());
  BOOST_TEST(microbatch->released == std::vector<SequenceId>{orphan});
}

/// Nothing that stages say is believed where it contradicts itself or what can be: it is forgotten.
BOOST_AUTO_TEST_CASE(holdings_that_make_no_sense) {
  using Held = graph::StageHoldings::Held;
  struct Case {
    const char* what;
    std::function<void(std::vector<graph::StageHoldings>&)> spoil;
  };
  const auto each = [](auto change) {
    return [change](std::vector<graph::StageHoldings>& stages) {
      for (graph::StageHoldings& stage : stages)
        for (Held& held : stage.held) change(held);
    };
  };
  const Case cases[] = {
      {"no identity", each([](Held& held) { held.identity = 0; })},
      {"a block that there is not", each([](Held& held) { held.table[0] = KvBlockId(1 << 20); })},
      {"a negative block", each([](Held& held) { held.table[0] = KvBlockId(-1); })},
      {"two tables", [](auto& stages) { stages[0].held[0].table[0] = KvBlockId(63); }},
      {"two identities", [](auto& stages) { ++stages[0].held[0].identity; }},
      {"two indexes", [](auto& stages) { ++stages[1].held[0].index; }},
  };
  for (const Case& c : cases) {
    BOOST_TEST_CONTEXT(c.what) {
      Chain chain(3, {.replay_log_bytes = kLogAll});
      const std::vector<Asked> asked = submit_some(chain);
      step_all(chain, 25);
      chain.lose({0});
      std::vector<graph::StageHoldings> holdings = {chain.loops[1]->holdings(),
                                                    chain.loops[2]->holdings()};
      const size_t num_held = holdings[0].held.size();
      BOOST_REQUIRE(num_held > 1u);
      c.spoil(holdings);
      chain.link_all();
      chain.first().hold();
      chain.first().resume(holdings);
      for (const Asked& one : asked) ask_again(chain, one);
      BOOST_REQUIRE(chain.run_dry().ok());
      give_up_orphans(chain);
      check_answers(chain, asked);
      BOOST_TEST(chain.first().sequencer().stats().sequences_adopted < num_held);
    }
  }
}

BOOST_AUTO_TEST_CASE(ids_that_cannot_be) {
  for (const uint64_t id :
       {uint64_t{0}, uint64_t{9} << 56 | 1 << 20, uint64_t{0xfffff} | 1 << 20}) {
    graph::Sequencer sequencer(chain_sequencer_options(2));
    graph::StageHoldings stage{.stage = StageIndex(1), .held = {}, .logged = {}};
    stage.held.push_back({SequenceId(id), 3, 7, 0, {KvBlockId(5)}});
    sequencer.adopt({&stage, 1}, TimePoint{});
    BOOST_TEST(sequencer.stats().num_free_blocks == kNumBlocks);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::actors
