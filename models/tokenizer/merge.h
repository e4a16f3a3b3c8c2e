// The merge loop that both kinds of byte pair encoding share: of all neighbours that may merge, the
// pair of lowest rank goes first, the leftmost among equals, until none is left. Short words scan
// their ranks, long ones keep a queue: O(n log n) whatever the text. One thread per object; keeps
// its memory between words. Algorithm: Sennrich et al., "Neural Machine Translation of Rare Words
// with Subword Units", ACL 2016.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/ids.h"
#include "models/tokenizer/merge_queue.h"

namespace chainpump::models {

inline constexpr TokenId kNoToken = -1;

struct Symbol {
  uint32_t begin = 0;  // bytes of the word or text
  uint32_t length = 0;
  TokenId id = kNoToken;
};

struct Merge {
  static constexpr int32_t kNever = std::numeric_limits<int32_t>::max();
  int32_t rank = kNever;
  TokenId id = kNoToken;
};

class Merger {
 public:
  /// All ranks that a look-up gives are below `num_ranks`, but for Merge::kNever.
  explicit Merger(int32_t num_ranks) : num_ranks_(num_ranks) {}

  /// Fill with adjacent symbols, then merge().
  std::vector<Symbol> symbols;

  /// `lookup(left, right)` -> Merge; the same for equal ids or bytes.
  template <typename Lookup>
  void merge(const Lookup& lookup) {
    if (symbols.size() < 2) return;
    if (symbols.size() <= kShortWord)
      merge_short(lookup);
    else
      merge_long(lookup);
  }

 private:
  static constexpr size_t kShortWord = 48;  // moving so few symbols is cheaper than a queue
  static constexpr uint32_t kEnd = std::numeric_limits<uint32_t>::max();

  // A symbol's neighbours, and what it and the next one would merge into.
  struct Link {
    uint32_t previous = kEnd;
    uint32_t next = kEnd;
    Merge merge;
  };

  template <typename Lookup>
  void merge_short(const Lookup& lookup) {
    Merge pairs[kShortWord];
    size_t count = symbols.size() - 1;
    for (size_t i = 0; i < count; ++i) pairs[i] = lookup(symbols[i], symbols[i + 1]);
    while (count > 0) {
      size_t best = 0;
      int32_t rank = Merge::kNever;
      for (size_t i = 0; i < count; ++i) {
        if (pairs[i].rank >= rank) continue;
        best = i;
        rank = pairs[i].rank;
      }
      if (rank == Merge::kNever) break;
      symbols[best].length += symbols[best + 1].length;
      symbols[best].id = pairs[best].id;
      --count;
      std::copy(pairs + best + 1, pairs + count + 1, pairs + best);
      const auto gone = symbols.begin() + static_cast<ptrdiff_t>(best) + 1;
      std::copy(gone + 1, symbols.begin() + static_cast<ptrdiff_t>(count) + 2, gone);
      if (best < count) pairs[best] = lookup(symbols[best], symbols[best + 1]);
      if (best > 0) pairs[best - 1] = lookup(symbols[best - 1], symbols[best]);
    }
    symbols.resize(count + 1);
  }

  template <typename Lookup>
  void merge_long(const Lookup& lookup) {
    const auto count = static_cast<uint32_t>(symbols.size());
    links_.resize(count);
    queue_.reset(count, num_ranks_);
    const auto consider = [&](uint32_t left) {
      Link& link = links_[left];
      link.merge = lookup(symbols[left], symbols[link.next]);
      if (link.merge.rank != Merge::kNever) queue_.push(link.merge.rank, left);
    };
    for (uint32_t i = 0; i < count; ++i)
      links_[i] = {i == 0 ? kEnd : i - 1, i + 1 == count ? kEnd : i + 1, {}};
    for (uint32_t i = 0; i + 1 < count; ++i) consider(i);
    while (const auto first = queue_.pop()) {
      // Entries of one rank lie all over the text: have the memory of a later one fetched.
      __builtin_prefetch(&links_[queue_.later()]);
      __builtin_prefetch(&symbols[queue_.later()]);
      const uint32_t left = first->left;
      Link& link = links_[left];
      if (link.merge.rank != first->rank) continue;  // one of the two has merged with another
      const uint32_t gone = link.next;
      symbols[left].length += symbols[gone].length;
      symbols[left].id = link.merge.id;
      symbols[gone].length = 0;
      link.next = links_[gone].next;
      link.merge = {};
      links_[gone].merge = {};
      if (link.next != kEnd) {
        links_[link.next].previous = left;
        consider(left);
      }
      if (link.previous != kEnd) consider(link.previous);
    }
    std::erase_if(symbols, [](const Symbol& symbol) { return symbol.length == 0; });
  }

  int32_t num_ranks_;
  std::vector<Link> links_;
  MergeQueue queue_;
};

}  // namespace chainpump::models
