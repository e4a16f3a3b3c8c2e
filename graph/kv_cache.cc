#include "graph/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "graph/token_hash.h"

namespace chainpump::graph {

KvCache::KvCache(const KvCacheOptions& options)
    : options_(options), index_(options.prefix_cache ? options.num_blocks : 0) {
  CHECK_GE(options.first_block, 0);
  CHECK_GT(options.num_blocks, 0);
  CHECK_GT(options.block_tokens, 0);
  const auto num_blocks = static_cast<size_t>(options.num_blocks);
  blocks_.resize(num_blocks);
  if (options.prefix_cache) tokens_.resize(num_blocks * static_cast<size_t>(options.block_tokens));
  free_.reserve(num_blocks);
  for (int32_t i = options.num_blocks - 1; i >= 0; --i) free_.push_back(i);
}

int32_t KvCache::index_of(KvBlockId block) const {
  const int32_t index = block.value - options_.first_block;
  CHECK_GE(index, 0);
  CHECK_LT(index, options_.num_blocks);
  return index;
}

TokenId* KvCache::tokens_of(int32_t block) {
  return tokens_.data() + static_cast<size_t>(block) * static_cast<size_t>(options_.block_tokens);
}

const TokenId* KvCache::tokens_of(int32_t block) const {
  return tokens_.data() + static_cast<size_t>(block) * static_cast<size_t>(options_.block_tokens);
}

std::span<const TokenId> KvCache::nth_block(std::span<const TokenId> tokens, int32_t index) const {
  const auto block_tokens = static_cast<size_t>(options_.block_tokens);
  return tokens.subspan(static_cast<size_t>(index) * block_tokens, block_tokens);
}

void KvCache::check_conserved() const {
  CHECK_EQ(num_free() + num_referenced_, options_.num_blocks);
}

// -- Content
// ---------------------------------------------------------------------------------------

// The hash is chained through the hashes, not through what the index finds: so a processor can work
// on the next block's before this block's look-up has come back from memory.
ContentId KvCache::content_of(uint64_t salt, ContentId before,
                              std::span<const TokenId> tokens) const {
  const uint64_t hash = chained_hash(before.value == 0 ? salt : before.hash, tokens);
  return {.value = 0, .hash = hash & options_.hash_mask};
}

int32_t KvCache::find(uint64_t salt, ContentId before, uint64_t hash,
                      std::span<const TokenId> tokens) const {
  return index_.find(hash, [&](int32_t candidate) {
    const Block& block = blocks_[static_cast<size_t>(candidate)];
    return block.before == before.value && block.salt == salt && block.content.hash == hash &&
           std::memcmp(tokens_of(candidate), tokens.data(), tokens.size_bytes()) == 0;
  });
}

ContentId KvCache::match(uint64_t salt, std::span<const TokenId> tokens, int32_t max_blocks,
                         std::vector<KvBlockId>& table) {
  ContentId content;
  if (!options_.prefix_cache) return content;
  const auto whole_blocks = static_cast<int32_t>(
      std::min<size_t>(tokens.size() / static_cast<size_t>(options_.block_tokens),
                       static_cast<size_t>(std::max(max_blocks, 0))));
  for (int32_t i = 0; i < whole_blocks; ++i) {
    const std::span<const TokenId> wanted = nth_block(tokens, i);
    const int32_t index = find(salt, content, content_of(salt, content, wanted).hash, wanted);
    if (index < 0) break;
    Block& block = blocks_[static_cast<size_t>(index)];
    if (block.num_references == 0) {
      remove_cached(index);
      ++num_referenced_;
    }
    ++block.num_references;
    table.push_back(id_of(index));
    content = block.content;
  }
  check_conserved();
  return content;
}

int32_t KvCache::num_matching(uint64_t salt, std::span<const TokenId> tokens,
                              int32_t max_blocks) const {
  if (!options_.prefix_cache) return 0;
  const auto whole_blocks = static_cast<int32_t>(
      std::min<size_t>(tokens.size() / static_cast<size_t>(options_.block_tokens),
                       static_cast<size_t>(std::max(max_blocks, 0))));
  ContentId content;
  for (int32_t i = 0; i < whole_blocks; ++i) {
    const std::span<const TokenId> wanted = nth_block(tokens, i);
    const int32_t index = find(salt, content, content_of(salt, content, wanted).hash, wanted);
    if (index < 0) return i;
    content = blocks_[static_cast<size_t>(index)].content;
  }
  return whole_blocks;
}

ContentId KvCache::publish(uint64_t salt, ContentId before, std::span<const TokenId> tokens,
                           KvBlockId id) {
  CHECK_EQ(tokens.size(), static_cast<size_t>(options_.block_tokens));
  const int32_t index = index_of(id);
  Block& block = blocks_[static_cast<size_t>(index)];
  CHECK_GT(block.num_references, 0);
  if (!options_.prefix_cache) return {};
  ContentId content = content_of(salt, before, tokens);
  const int32_t other = find(salt, before, content.hash, tokens);
  if (block.content.value != 0) {  // said before, of this block
    CHECK_GE(other, 0);
    CHECK_EQ(block.content.value, blocks_[static_cast<size_t>(other)].content.value);
    return block.content;
  }
  if (other < 0) {
    content.value = ++last_content_;
    set_canonical(index, salt, before, tokens, content);
    return content;
  }
  Block& canonical = blocks_[static_cast<size_t>(other)];
  if (canonical.num_references == 0) {
    remove_cached(other);
    hand_over(other, index);
    free_.push_back(other);
    check_conserved();
    return block.content;
  }
  block.content = canonical.content;
  block.previous = other;
  block.next = canonical.next;
  blocks_[static_cast<size_t>(canonical.next)].previous = index;
  canonical.next = index;
  return block.content;
}

// A ring of one.
void KvCache::set_canonical(int32_t index, uint64_t salt, ContentId before,
                            std::span<const TokenId> tokens, ContentId content) {
  Block& block = blocks_[static_cast<size_t>(index)];
  block.canonical = true;
  block.previous = block.next = index;
  block.salt = salt;
  block.before = before.value;
  block.content = content;
  std::copy(tokens.begin(), tokens.end(), tokens_of(index));
  index_.insert(content.hash, index);
}

// `from`, alone or out of every list, loses its content to `to`, which keeps its place in a ring.
void KvCache::hand_over(int32_t from, int32_t to) {
  Block& old_block = blocks_[static_cast<size_t>(from)];
  Block& new_block = blocks_[static_cast<size_t>(to)];
  if (new_block.content.value == 0) new_block.previous = new_block.next = to;
  new_block.canonical = true;
  new_block.salt = old_block.salt;
  new_block.before = old_block.before;
  new_block.content = old_block.content;
  std::copy_n(tokens_of(from), options_.block_tokens, tokens_of(to));
  index_.replace(old_block.content.hash, from, to);
  old_block = Block{};
}

// Of a block that is out of every list.
void KvCache::forget_content(int32_t index) {
  Block& block = blocks_[static_cast<size_t>(index)];
  if (block.canonical) index_.erase(block.content.hash, index);
  block = Block{};
}

void KvCache::clear() {
  while (eldest_ >= 0) {
    const int32_t index = eldest_;
    remove_cached(index);
    forget_content(index);
    free_.push_back(index);
  }
  for (Block& block : blocks_) {
    const int32_t num_references = block.num_references;
    block = Block{};
    block.num_references = num_references;
  }
  index_.clear();
  check_conserved();
}

// -- References
// ------------------------------------------------------------------------------------

std::optional<KvBlockId> KvCache::allocate() {
  int32_t index = -1;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else if (eldest_ >= 0) {
    index = evict();
  } else {
    return std::nullopt;
  }
  blocks_[static_cast<size_t>(index)].num_references = 1;
  ++num_referenced_;
  check_conserved();
  return id_of(index);
}

bool KvCache::take(std::span<const KvBlockId> table) {
  CHECK_EQ(num_cached_, 0);
  const auto foreign = [&](KvBlockId id) {
    return id.value < options_.first_block ||
           id.value - options_.first_block >= options_.num_blocks;
  };
  if (std::any_of(table.begin(), table.end(), foreign)) return false;
  for (const KvBlockId id : table)
    if (blocks_[static_cast<size_t>(index_of(id))].num_references++ == 0) ++num_referenced_;
  const auto taken = [&](int32_t index) {
    return blocks_[static_cast<size_t>(index)].num_references > 0;
  };
  free_.erase(std::remove_if(free_.begin(), free_.end(), taken), free_.end());
  check_conserved();
  return true;
}

void KvCache::share(KvBlockId id) {
  Block& block = blocks_[static_cast<size_t>(index_of(id))];
  CHECK_GT(block.num_references, 0);
  ++block.num_references;
}

int32_t KvCache::num_references(KvBlockId id) const {
  return blocks_[static_cast<size_t>(index_of(id))].num_references;
}

void KvCache::release(KvBlockId id) {
  const int32_t index = index_of(id);
  Block& block = blocks_[static_cast<size_t>(index)];
  CHECK_GT(block.num_references, 0);
  if (--block.num_references > 0) return;
  --num_referenced_;
  if (block.canonical && block.next == index) {
    append_cached(index);
    check_conserved();
    return;
  }
  if (block.content.value != 0) {  // others hold the same
    const int32_t heir = block.next;
    blocks_[static_cast<size_t>(block.previous)].next = block.next;
    blocks_[static_cast<size_t>(block.next)].previous = block.previous;
    if (block.canonical) hand_over(index, heir);
  }
  block = Block{};
  free_.push_back(index);
  check_conserved();
}

void KvCache::release(std::span<const KvBlockId> table) {
  for (auto block = table.rbegin(); block != table.rend(); ++block) release(*block);
}

// -- The order of eviction
// -------------------------------------------------------------------------

void KvCache::append_cached(int32_t index) {
  Block& block = blocks_[static_cast<size_t>(index)];
  block.previous = youngest_;
  block.next = -1;
  if (youngest_ >= 0)
    blocks_[static_cast<size_t>(youngest_)].next = index;
  else
    eldest_ = index;
  youngest_ = index;
  ++num_cached_;
}

void KvCache::remove_cached(int32_t index) {
  Block& block = blocks_[static_cast<size_t>(index)];
  if (block.previous >= 0)
    blocks_[static_cast<size_t>(block.previous)].next = block.next;
  else
    eldest_ = block.next;
  if (block.next >= 0)
    blocks_[static_cast<size_t>(block.next)].previous = block.previous;
  else
    youngest_ = block.previous;
  block.previous = block.next = index;  // a ring of one
  --num_cached_;
}

int32_t KvCache::evict() {
  const int32_t index = eldest_;
  remove_cached(index);
  forget_content(index);
  return index;
}

}  // namespace chainpump::graph
