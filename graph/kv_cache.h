// One lane's account of KV blocks: who refers to which, and which hold content that later requests
// may share. Ids only; the memory lives in the stages. Every stage of a lane uses the same ids, so
// the smallest stage's pool is what is accounted.
//
//   block state   what ends it
//   free          allocate -> referenced (1)
//   referenced    share: +1; release: -1; at 0: cached if it is the canonical block of published
//                 content that no referenced block holds as well, else free
//   cached        match -> referenced (1); evicted by allocate when nothing is free -> referenced
//                 (1); another block with the same content is published -> free
//
// A published block is found again by the chained hash of its tokens and all before them, salted by
// tenant; a hit is confirmed by comparing the token ids and the identity of the content before, so
// a hash collision cannot give another's content. Content that several blocks hold (two sequences
// computed it side by side) is published once; when its canonical block goes, another takes over,
// so that content stays findable as long as any block has it. Eviction is least recently used, a
// chain's tail first: whoever refers to a block refers to those before it, and gives back the last
// one first. Conserved and CHECKed: free + cached + referenced = total.
// Pure; one thread; O(1) per block. Hit rates and the like are the caller's to count.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "graph/block_index.h"

namespace chainpump::graph {

struct KvCacheOptions {
  int32_t first_block = 0;  // ids handed out are [first_block, first_block + num_blocks)
  int32_t num_blocks = 0;
  int32_t block_tokens = 0;
  bool prefix_cache = true;
  uint64_t hash_mask = ~uint64_t{0};  // tests make hashes collide with it
};

/// The content of a chain of whole blocks up to some block: what the next one is chained to.
/// `value` is never reused, so it says "the same content" without comparing again.
struct ContentId {
  uint64_t value = 0;  // 0: before the first block, the tenant's root
  uint64_t hash = 0;   // of the chain; a function of the tokens and the salt
  bool operator==(const ContentId&) const = default;
};

class KvCache {
 public:
  explicit KvCache(const KvCacheOptions& options);

  int32_t num_blocks() const { return options_.num_blocks; }
  /// Free and cached: what allocate() can give.
  int32_t num_free() const { return static_cast<int32_t>(free_.size()) + num_cached_; }
  int32_t num_cached() const { return num_cached_; }
  int32_t num_referenced() const { return num_referenced_; }

  /// Finds the longest published prefix of `tokens`, in whole blocks, at most `max_blocks`; refers
  /// to each block found and appends it to `table`; returns the content of the last (or the root).
  ContentId match(uint64_t salt, std::span<const TokenId> tokens, int32_t max_blocks,
                  std::vector<KvBlockId>& table);
  /// How many blocks match() would find; changes nothing (not even the order of eviction).
  int32_t num_matching(uint64_t salt, std::span<const TokenId> tokens, int32_t max_blocks) const;

  /// A block with one reference and no content; evicts if it must. Empty if all are referenced.
  std::optional<KvBlockId> allocate();
  /// A table that was not made here, while nothing is cached: each of its blocks has one reference
  /// more. False, and nothing is taken, if one of them is not this lane's.
  bool take(std::span<const KvBlockId> table);
  /// One more table holds this referenced block.
  void share(KvBlockId block);
  int32_t num_references(KvBlockId block) const;
  void release(KvBlockId block);
  /// In reverse order, so that a chain's tail is evicted before its head.
  void release(std::span<const KvBlockId> table);

  /// Says that `block` holds (or, frames being in order, will hold for every later frame) the
  /// content `tokens` (block_tokens of them) after `before`. The block must be referenced and not
  /// hold other content. If that content is published already the other block stays the canonical
  /// one, unless it was only cached: then it becomes free. Returns the content, to chain the next
  /// block to.
  ContentId publish(uint64_t salt, ContentId before, std::span<const TokenId> tokens,
                    KvBlockId block);

  /// Forgets all cached content (referenced blocks stay, unpublished).
  void clear();

 private:
  struct Block {
    int32_t num_references = 0;
    bool canonical = false;
    // Neighbours in the order of eviction, if cached; else, in a ring, of those with equal content.
    int32_t previous = -1;
    int32_t next = -1;
    uint64_t salt = 0;
    uint64_t before = 0;  // ContentId::value
    ContentId content;    // value 0: none
  };

  ContentId content_of(uint64_t salt, ContentId before, std::span<const TokenId> tokens) const;
  int32_t find(uint64_t salt, ContentId before, uint64_t hash,
               std::span<const TokenId> tokens) const;
  std::span<const TokenId> nth_block(std::span<const TokenId> tokens, int32_t index) const;
  TokenId* tokens_of(int32_t block);
  const TokenId* tokens_of(int32_t block) const;
  int32_t index_of(KvBlockId block) const;
  KvBlockId id_of(int32_t index) const { return KvBlockId(options_.first_block + index); }

  void set_canonical(int32_t index, uint64_t salt, ContentId before,
                     std::span<const TokenId> tokens, ContentId content);
  void hand_over(int32_t from, int32_t to);
  void append_cached(int32_t index);
  void remove_cached(int32_t index);
  int32_t evict();
  void forget_content(int32_t index);
  void check_conserved() const;

  KvCacheOptions options_;
  uint64_t last_content_ = 0;
  int32_t num_cached_ = 0;
  int32_t num_referenced_ = 0;
  std::vector<Block> blocks_;
  std::vector<TokenId> tokens_;  // [num_blocks, block_tokens], of canonical blocks
  std::vector<int32_t> free_;    // used as a stack
  int32_t eldest_ = -1;          // the ends of the order of eviction
  int32_t youngest_ = -1;
  BlockIndex index_;  // canonical blocks
};

}  // namespace chainpump::graph
