// The KV cache against a naive model of it: random sequences begin, grow, fork, copy on write, end
// and are preempted, with honest hashes, a few bits of them and none at all.
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <list>
#include <map>
#include <optional>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#include "graph/kv_cache.h"

namespace chainpump::graph {
namespace {

constexpr int32_t kBlockTokens = 2;

/// What a block holds in truth, and what a match must therefore be.
struct Written {
  uint64_t salt = 0;
  std::vector<TokenId> prefix;  // all tokens up to the block's end
  bool operator==(const Written&) const = default;
};

class Model {
 public:
  explicit Model(const KvCacheOptions& options) : options_(options), cache_(options) {}

  struct Sequence {
    uint64_t salt = 0;
    std::vector<TokenId> tokens;
    std::vector<KvBlockId> table;
    int32_t num_published = 0;  // blocks
    ContentId content;
  };

  Sequence begin(uint64_t salt, std::vector<TokenId> prompt) {
    Sequence sequence{.salt = salt, .tokens = std::move(prompt)};
    const auto max_blocks = static_cast<int32_t>((sequence.tokens.size() - 1) / kBlockTokens);
    const std::vector<KvBlockId> expected = expected_match(sequence, max_blocks);
    const auto num_expected = static_cast<int32_t>(expected.size());
    BOOST_TEST_REQUIRE(cache_.num_matching(salt, sequence.tokens, max_blocks) == num_expected);
    sequence.content = cache_.match(salt, sequence.tokens, max_blocks, sequence.table);
    BOOST_TEST_REQUIRE((sequence.table == expected));
    for (int32_t i = 0; i < num_expected; ++i) {
      const KvBlockId block = expected[static_cast<size_t>(i)];
      BOOST_TEST_REQUIRE((blocks_[block].written == written(sequence, i)));
      if (blocks_[block].num_references++ == 0) cached_.remove(block);
    }
    if (num_expected > 0)
      BOOST_TEST_REQUIRE(blocks_[expected.back()].content == sequence.content.value);
    sequence.num_published = num_expected;
    return sequence;
  }

  /// Appends a token (taking, copying, publishing blocks as needed); false if there is no room.
  bool append(Sequence& sequence, TokenId token) {
    sequence.tokens.push_back(token);
    if (cover(sequence)) return true;
    sequence.tokens.pop_back();
    return false;
  }

  /// Blocks for all its tokens; what it was before if they do not suffice.
  bool cover(Sequence& sequence) {
    const size_t first_new = sequence.table.size() * kBlockTokens;
    if (sequence.tokens.size() <= first_new) {  // writes into its last block: must be its own
      KvBlockId& last = sequence.table.back();
      if (blocks_[last].num_references > 1) {
        const auto copy = allocate();
        if (!copy) return false;
        const KvBlockId shared = std::exchange(last, *copy);
        release({shared});
      }
    }
    while (sequence.table.size() * kBlockTokens < sequence.tokens.size()) {
      const auto block = allocate();
      if (!block) return false;
      sequence.table.push_back(*block);
    }
    while ((static_cast<size_t>(sequence.num_published) + 1) * kBlockTokens <=
           sequence.tokens.size())
      publish_next(sequence);
    return true;
  }

  Sequence fork(const Sequence& sequence) {
    for (const KvBlockId block : sequence.table) {
      cache_.share(block);
      ++blocks_[block].num_references;
    }
    return sequence;
  }

  void end(const Sequence& sequence) { release(sequence.table); }

  void clear() {
    cache_.clear();
    cached_.clear();
    published_.clear();
    for (auto& [id, block] : blocks_) block.content = 0;
  }

  void check() const {
    int32_t num_referenced = 0;
    for (const auto& [id, block] : blocks_) {
      BOOST_TEST_REQUIRE(cache_.num_references(id) == block.num_references);
      num_referenced += block.num_references > 0 ? 1 : 0;
    }
    BOOST_TEST_REQUIRE(cache_.num_referenced() == num_referenced);
    BOOST_TEST_REQUIRE(cache_.num_cached() == static_cast<int32_t>(cached_.size()));
    BOOST_TEST_REQUIRE(cache_.num_free() == options_.num_blocks - num_referenced);
  }
  bool empty() const { return cache_.num_referenced() == 0; }

 private:
  using Key = std::tuple<uint64_t, uint64_t, std::vector<TokenId>>;  // salt, before, tokens
  struct Block {
    int32_t num_references = 0;
    uint64_t content = 0;
    Written written;
  };
  struct Published {
    uint64_t content = 0;
    std::list<KvBlockId> holders;  // the canonical one first, then its heirs in order
  };

  static std::vector<TokenId> nth_tokens(const Sequence& sequence, int32_t index) {
    const auto begin = sequence.tokens.begin() + index * kBlockTokens;
    return {begin, begin + kBlockTokens};
  }
  static Written written(const Sequence& sequence, int32_t index) {
    return {sequence.salt,
            {sequence.tokens.begin(), sequence.tokens.begin() + (index + 1) * kBlockTokens}};
  }

  std::vector<KvBlockId> expected_match(const Sequence& sequence, int32_t max_blocks) const {
    std::vector<KvBlockId> result;
    uint64_t before = 0;
    while (static_cast<int32_t>(result.size()) < max_blocks) {
      const auto index = static_cast<int32_t>(result.size());
      const auto found = published_.find({sequence.salt, before, nth_tokens(sequence, index)});
      if (found == published_.end()) break;
      result.push_back(found->second.holders.front());
      before = found->second.content;
    }
    return result;
  }

  std::optional<KvBlockId> allocate() {
    const int32_t room = cache_.num_free();
    const bool must_evict = room > 0 && room == cache_.num_cached();
    const auto block = cache_.allocate();
    BOOST_TEST_REQUIRE(block.has_value() == (room > 0));
    if (!block) return block;
    BOOST_TEST_REQUIRE(block->value >= options_.first_block);
    BOOST_TEST_REQUIRE(block->value < options_.first_block + options_.num_blocks);
    BOOST_TEST_REQUIRE(blocks_[*block].num_references == 0);
    if (must_evict) {
      BOOST_TEST_REQUIRE((*block == cached_.front()));
      cached_.pop_front();
      forget(*block);
    } else {
      BOOST_TEST_REQUIRE((std::find(cached_.begin(), cached_.end(), *block) == cached_.end()));
    }
    blocks_[*block] = {.num_references = 1};
    return block;
  }

  void publish_next(Sequence& sequence) {
    const int32_t index = sequence.num_published++;
    const KvBlockId block = sequence.table[static_cast<size_t>(index)];
    const std::vector<TokenId> tokens = nth_tokens(sequence, index);
    const Key key{sequence.salt, sequence.content.value, tokens};
    sequence.content = cache_.publish(sequence.salt, sequence.content, tokens, block);
    blocks_[block].written = written(sequence, index);
    blocks_[block].content = sequence.content.value;
    const auto [entry, is_new] = published_.try_emplace(key);
    Published& published = entry->second;
    if (is_new) {
      for (const auto& [other_key, other] : published_)
        BOOST_TEST_REQUIRE(other.content != sequence.content.value);
      published.content = sequence.content.value;
    }
    BOOST_TEST_REQUIRE(published.content == sequence.content.value);
    if (!published.holders.empty() && blocks_[published.holders.front()].num_references == 0) {
      cached_.remove(published.holders.front());
      blocks_[published.holders.front()].content = 0;
      published.holders.clear();
    }
    // The newest stands next to the canonical one, so it is the heir.
    const auto after_canonical = published.holders.empty() ? 0 : 1;
    published.holders.insert(std::next(published.holders.begin(), after_canonical), block);
  }

  void release(const std::vector<KvBlockId>& table) {
    cache_.release(table);
    for (auto block = table.rbegin(); block != table.rend(); ++block) {
      if (--blocks_[*block].num_references > 0 || blocks_[*block].content == 0) continue;
      Published& published = entry_of(*block)->second;
      if (published.holders.size() == 1)
        cached_.push_back(*block);
      else
        forget(*block);
    }
  }

  std::map<Key, Published>::iterator entry_of(KvBlockId block) {
    return std::find_if(published_.begin(), published_.end(), [&](const auto& entry) {
      return entry.second.content == blocks_[block].content;
    });
  }

  void forget(KvBlockId block) {
    const auto entry = entry_of(block);
    BOOST_TEST_REQUIRE((entry != published_.end()));
    auto& holders = entry->second.holders;
    holders.remove(block);
    blocks_[block].content = 0;
    if (holders.empty()) published_.erase(entry);
  }

  KvCacheOptions options_;
  KvCache cache_;
  std::map<KvBlockId, Block> blocks_;
  std::map<Key, Published> published_;
  std::list<KvBlockId> cached_;  // the next to be evicted first
};

class RandomRun {
 public:
  RandomRun(uint32_t seed, const KvCacheOptions& options) : random_(seed), model_(options) {}

  void run(int num_steps) {
    for (int i = 0; i < num_steps; ++i) {
      step();
      model_.check();
    }
    while (!sequences_.empty()) end(0);
    model_.check();
    BOOST_TEST_REQUIRE(model_.empty());
  }

 private:
  uint32_t below(size_t end) { return random_() % static_cast<uint32_t>(end); }
  TokenId any_token() { return static_cast<TokenId>(below(2)); }

  void step() {
    const uint32_t choice = below(100);
    if (sequences_.empty() || choice < 20) return begin();
    const uint32_t index = below(sequences_.size());
    if (choice < 70) {
      if (!model_.append(sequences_[index], any_token())) preempt(below(sequences_.size()));
    } else if (choice < 80) {
      sequences_.push_back(model_.fork(sequences_[index]));
    } else if (choice < 99) {
      end(index);
    } else {
      model_.clear();
    }
  }

  void begin() {
    std::vector<TokenId> prompt(1 + below(12));
    for (TokenId& token : prompt) token = any_token();
    start(below(2), std::move(prompt));
  }
  void start(uint64_t salt, std::vector<TokenId> tokens) {
    Model::Sequence sequence = model_.begin(salt, std::move(tokens));
    if (model_.cover(sequence))
      sequences_.push_back(std::move(sequence));
    else
      model_.end(sequence);
  }
  void preempt(uint32_t index) {
    const Model::Sequence dropped = sequences_[index];
    end(index);
    start(dropped.salt, dropped.tokens);
  }
  void end(uint32_t index) {
    model_.end(sequences_[index]);
    sequences_.erase(sequences_.begin() + index);
  }

  std::mt19937 random_;
  Model model_;
  std::vector<Model::Sequence> sequences_;
};

BOOST_AUTO_TEST_SUITE(kv_cache_model)

BOOST_AUTO_TEST_CASE(stays_equal_to_its_model) {
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    for (const uint64_t mask : {~uint64_t{0}, uint64_t{3}, uint64_t{0}}) {
      KvCacheOptions options{.block_tokens = kBlockTokens, .hash_mask = mask};
      options.first_block = static_cast<int32_t>(seed % 3) * 1000;
      options.num_blocks = 4 + static_cast<int32_t>(seed % 5) * 7;
      BOOST_TEST_CONTEXT("seed " << seed << ", hash mask " << mask)
      RandomRun(seed, options).run(600);
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::graph
