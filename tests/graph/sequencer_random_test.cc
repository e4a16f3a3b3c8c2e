// The sequencer under random load, over a chain that checks every position that is read. Everything
// of a run follows from its seed; each choice must get exactly the tokens that it gets alone, a
// part of them if it was cancelled or its time ran out.
#include <boost/test/unit_test.hpp>
#include <deque>
#include <map>
#include <random>

#include "graph/sequencer.h"
#include "tests/fakes/kv_chain.h"
#include "tests/fakes/why.h"

namespace chainpump::graph {
namespace {

using namespace std::chrono_literals;
using fakes::KvChain;

constexpr TokenId kVocabulary = 40;
constexpr int32_t kBlockTokens = 4;
constexpr int32_t kContext = 64;
constexpr int32_t kMaxSteps = 60000;

class RandomRun {
 public:
  explicit RandomRun(uint32_t seed)
      : random_(seed), options_(make_options()), sequencer_(options_), chain_(chain_options()) {}

  /// Empty if all was well.
  std::string run() {
    int to_submit = 1 + pick(14);
    for (int step = 0; to_submit > 0 || !sequencer_.idle(); ++step) {
      if (step == kMaxSteps) return "it does not end";
      const int dice = pick(16);
      if (dice == 0 && to_submit > 0) {
        submit();
        --to_submit;
      } else if (dice == 1) {
        cancel();
      } else if (dice == 2) {
        now_ = now_ + std::chrono::microseconds(pick(400));
        pass_time();
      } else if (dice < 9) {
        form();
      } else {
        take_result();
      }
      check_books();
      if (!wrong_.empty()) return fmt::format("step {}: {}", step, wrong_);
    }
    check_end();
    return wrong_;
  }
  const SequencerStats stats() const { return sequencer_.stats(); }

 private:
  struct Expected {
    std::vector<TokenResult> tokens;
    std::vector<ScoreResult> scores;
    size_t num_tokens = 0;  // delivered
    size_t num_scores = 0;
    bool ended = false;
  };
  struct Known {
    uint64_t seed = 0;
    std::optional<TimePoint> deadline;
  };

  int pick(int below) { return static_cast<int>(random_() % static_cast<uint32_t>(below)); }
  bool chance(int in) { return pick(in) == 0; }

  SequencerOptions make_options() {
    SequencerOptions options;
    options.lane = static_cast<uint8_t>(pick(3));
    options.first_kv_block = pick(2) * 100;
    const int num_stages = 1 + pick(5);
    const int num_blocks = chance(2) ? kContext / kBlockTokens + pick(8) : 30 + pick(120);
    for (int i = 0; i < num_stages; ++i)
      options.stages.push_back({fmt::format("stage {}", i), num_blocks + pick(3)});
    options.block_tokens = kBlockTokens;
    options.context_tokens = kContext;
    options.max_microbatch_tokens = 1 + pick(24);
    options.max_metadata_bytes = chance(3) ? 1500 + pick(1000) : 0;
    options.prefill_chunk_tokens = chance(2) ? 1 + pick(options.max_microbatch_tokens) : 0;
    options.max_sequences = 1 + pick(8);
    options.max_queued = chance(3) ? 4 + pick(6) : 100;
    options.max_microbatches = 1 + pick(num_stages + 1);
    options.vocabulary_size = kVocabulary;
    options.prefix_cache = !chance(3);
    options.decode_delay_max = std::chrono::microseconds(pick(50));
    options.cost_prior = {1e-6, 1e-6, 1e-9};
    return options;
  }
  fakes::KvChainOptions chain_options() const {
    int num_blocks = options_.stages[0].num_kv_blocks;
    for (const StageRoom& stage : options_.stages)
      num_blocks = std::min(num_blocks, stage.num_kv_blocks);
    return {.block_tokens = kBlockTokens,
            .first_block = options_.first_kv_block,
            .num_blocks = num_blocks,
            .max_sequences = options_.max_sequences,
            .max_tokens = options_.max_microbatch_tokens,
            .vocabulary_size = kVocabulary};
  }

  Request make_request() {
    Request request;
    request.id = RequestId(++last_request_);
    request.tenant = TenantId(static_cast<uint32_t>(pick(3)));
    request.tenant_weight = 1 + static_cast<double>(request.tenant.value);
    request.cache_salt = static_cast<uint64_t>(pick(2));
    request.priority = chance(4) ? pick(3) - 1 : 0;
    if (chance(6)) request.deadline = now_ + std::chrono::microseconds(1 + pick(4000));
    // Few beginnings, so that prefixes are often equal, and differ at any place.
    const int num_prompt = 1 + pick(chance(3) ? 44 : 16);
    const int kind = pick(3);
    for (int i = 0; i < num_prompt; ++i) request.prompt.push_back((i * (3 + kind)) % kVocabulary);
    if (chance(4)) request.prompt[static_cast<size_t>(pick(num_prompt))] = 1;
    request.sampling.seed = request.cache_salt << 32 | last_request_;
    request.sampling.max_new_tokens = 1 + pick(chance(4) ? 60 : 14);
    request.sampling.ignore_eos = chance(2);
    request.sampling.temperature = 1;
    if (num_prompt > 1 && chance(5)) {
      request.score.first_position = pick(num_prompt - 1);
    } else if (chance(3)) {
      request.num_choices = 2 + pick(3);
      request.first_choice = static_cast<uint32_t>(pick(2));
    } else if (chance(5)) {
      resume(request);
    }
    return request;
  }
  /// As if some of its tokens had been made by an earlier incarnation.
  void resume(Request& request) {
    request.first_choice = static_cast<uint32_t>(pick(4));
    const std::vector<TokenResult> all =
        KvChain::expected_tokens(request, 0, kContext, kVocabulary);
    const int room = kContext - static_cast<int>(request.prompt.size());
    const int most = std::min(static_cast<int>(all.size()), room);
    for (int i = 0; i + 1 < most && !chance(4); ++i)
      request.generated.push_back(all[static_cast<size_t>(i)].token);
  }

  void submit() {
    Request request = make_request();
    std::map<uint32_t, Expected> expected;
    for (int i = 0; i < request.num_choices; ++i) {
      Expected& choice = expected[request.first_choice + static_cast<uint32_t>(i)];
      if (request.score.first_position >= 0)
        choice.scores =
            KvChain::expected_scores(request.prompt, request.score.first_position, kVocabulary);
      else
        choice.tokens = KvChain::expected_tokens(request, i, kContext, kVocabulary);
    }
    const RequestId id = request.id;
    const Known known{request.sampling.seed, request.deadline};
    const Status taken = sequencer_.submit(std::move(request), now_);
    if (taken.ok()) {
      known_[id] = known;
      for (auto& [index, choice] : expected) expected_[{id, index}] = std::move(choice);
    } else if (taken.error().code != ErrorCode::overloaded) {
      wrong_ = taken.error().message;
    }
  }

  void cancel() {
    if (expected_.empty() || !chance(6)) return;
    auto victim = expected_.begin();
    std::advance(victim, pick(static_cast<int>(expected_.size())));
    const auto [id, index] = victim->first;
    const bool all = chance(2);
    if (all)
      sequencer_.cancel(id);
    else
      sequencer_.cancel(id, index);
    for (auto& [choice, expected] : expected_)
      if (choice.first == id && (all || choice.second == index)) expected.ended = true;
    if (all) forgotten_.push_back(known_[id].seed);
  }

  void pass_time() {
    Deliveries out;
    sequencer_.on_time(now_, out);
    if (!out.tokens.empty() || !out.scores.empty()) wrong_ = "time made tokens";
    for (const EndDelivery& end : out.ended) {
      Expected& expected = expected_[{end.choice.request, end.choice.index}];
      if (expected.ended || end.how.ok() || end.how.error().code != ErrorCode::deadline_exceeded ||
          known_[end.choice.request].deadline > now_)
        wrong_ = "a wrong end by time";
      expected.ended = true;
    }
    const auto next = sequencer_.next_deadline();
    if (next && *next <= now_) wrong_ = "a deadline was left over";
  }

  void form() {
    std::optional<Microbatch> microbatch = sequencer_.next();
    if (!microbatch) return;
    Result<StepResult> result = chain_.run(*microbatch);
    if (!result.ok()) {
      wrong_ = result.error().message;
      return;
    }
    for (const uint64_t seed : forgotten_)
      if (chain_.holds_seed(seed)) wrong_ = "a cancelled request is still held";
    forgotten_.clear();
    result->slowest = std::chrono::microseconds(1 + microbatch->num_tokens() + pick(3));
    in_flight_.push_back(std::move(*result));
  }

  void take_result() {
    if (in_flight_.empty()) return;
    Deliveries out;
    const Status taken = sequencer_.on_result(in_flight_.front(), now_, out);
    in_flight_.pop_front();
    if (!taken.ok()) wrong_ = taken.error().message;
    for (const TokenDelivery& token : out.tokens) {
      Expected& expected = expected_[{token.choice.request, token.choice.index}];
      TokenResult wanted = expected.num_tokens < expected.tokens.size()
                               ? expected.tokens[expected.num_tokens++]
                               : TokenResult{};
      wanted.id = token.token.id;
      if (expected.ended || !(wanted == token.token)) wrong_ = "a wrong token";
    }
    for (const ScoreDelivery& score : out.scores) {
      Expected& expected = expected_[{score.choice.request, score.choice.index}];
      ScoreResult wanted = expected.num_scores < expected.scores.size()
                               ? expected.scores[expected.num_scores++]
                               : ScoreResult{};
      wanted.id = score.score.id;
      if (expected.ended || !(wanted == score.score)) wrong_ = "a wrong score";
    }
    for (const EndDelivery& end : out.ended) {
      Expected& expected = expected_[{end.choice.request, end.choice.index}];
      const bool complete = expected.num_tokens == expected.tokens.size() &&
                            expected.num_scores == expected.scores.size();
      const FinishReason wanted =
          expected.tokens.empty() ? FinishReason::stop : expected.tokens.back().finish;
      if (expected.ended || !complete || !end.how.ok() || *end.how != wanted)
        wrong_ = "a wrong end";
      expected.ended = true;
    }
  }

  void check_books() {
    const SequencerStats stats = sequencer_.stats();
    const int bound = options_.max_queued + options_.max_sequences;
    if (stats.num_running > options_.max_sequences || stats.num_waiting > bound ||
        stats.num_preempted_now > stats.num_waiting || stats.num_preempted_now < 0 ||
        stats.waiting_tokens < 0 || stats.num_in_flight > options_.max_microbatches)
      wrong_ = "the counts are wrong";
    if (static_cast<int32_t>(chain_.num_held()) > options_.max_sequences) wrong_ = "too many held";
  }
  void check_end() {
    const SequencerStats stats = sequencer_.stats();
    if (stats.num_free_blocks != stats.num_blocks) wrong_ = "blocks are lost";
    if (stats.num_running + stats.num_waiting + stats.num_preempted_now != 0 ||
        stats.waiting_tokens != 0)
      wrong_ = "the counts do not come to nothing";
    if (chain_.num_held() != 0) wrong_ = "the stages still hold something";
    if (sequencer_.next_deadline()) wrong_ = "a deadline is left";
    for (const auto& [choice, expected] : expected_)
      if (!expected.ended) wrong_ = "a request did not end";
  }

  std::mt19937 random_;
  SequencerOptions options_;
  Sequencer sequencer_;
  KvChain chain_;
  TimePoint now_;
  uint64_t last_request_ = 0;
  std::deque<StepResult> in_flight_;
  std::map<RequestId, Known> known_;
  std::map<std::pair<RequestId, uint32_t>, Expected> expected_;
  std::vector<uint64_t> forgotten_;  // seeds of requests cancelled since the last microbatch
  std::string wrong_;
};

}  // namespace

BOOST_AUTO_TEST_CASE(every_choice_gets_its_own_tokens_whatever_happens) {
  uint64_t preemptions = 0;
  uint64_t hits = 0;
  for (uint32_t seed = 0; seed < 4000; ++seed) {
    RandomRun run(seed);
    const std::string wrong = run.run();
    BOOST_REQUIRE_MESSAGE(wrong.empty(), "seed " << seed << ": " << wrong);
    preemptions += run.stats().preemptions;
    hits += run.stats().prompt_tokens_hit;
  }
  BOOST_TEST(preemptions > 500u);  // else nothing was tried
  BOOST_TEST(hits > 10000u);
}

}  // namespace chainpump::graph
