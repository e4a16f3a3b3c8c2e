// The merge loop that both kinds of byte pair encoding share: of all neighbours that may merge, the
// pair of lowest rank goes first, the leftmost among equals, until none is left. Short words scan
// their ranks, long ones keep a heap: O(n log n) whatever the text. One thread per object; keeps
// its memory between words. Algorithm: Sennrich et al., "Neural Machine Translation of Rare Words
// with Subword Units", ACL 2016.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/ids.h"

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
  static constexpr size_t kShortWord = 48;  // moving so few symbols is cheaper than a heap

  struct Candidate {
    int32_t rank;
    uint32_t left;    // index of the left symbol
    uint32_t length;  // of both together: differs once either has merged with somebody else
    TokenId id;
    bool operator<(const Candidate& other) const {  // the heap's top is the first to merge
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };

  template <typename Lookup>
  void merge_short(const Lookup& lookup) {
    pairs_.clear();
    for (size_t i = 0; i + 1 < symbols.size(); ++i)
      pairs_.push_back(lookup(symbols[i], symbols[i + 1]));
    while (!pairs_.empty()) {
      size_t best = 0;
      for (size_t i = 1; i < pairs_.size(); ++i)
        if (pairs_[i].rank < pairs_[best].rank) best = i;
      if (pairs_[best].rank == Merge::kNever) return;
      symbols[best].length += symbols[best + 1].length;
      symbols[best].id = pairs_[best].id;
      symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
      pairs_.erase(pairs_.begin() + static_cast<ptrdiff_t>(best));
      if (best < pairs_.size()) pairs_[best] = lookup(symbols[best], symbols[best + 1]);
      if (best > 0) pairs_[best - 1] = lookup(symbols[best - 1], symbols[best]);
    }
  }

  template <typename Lookup>
  void merge_long(const Lookup& lookup) {
    constexpr uint32_t kEnd = std::numeric_limits<uint32_t>::max();
    const auto count = static_cast<uint32_t>(symbols.size());
    next_.resize(count);
    previous_.resize(count);
    heap_.clear();
    const auto consider = [&](uint32_t left, uint32_t right) {
      const Merge merge = lookup(symbols[left], symbols[right]);
      if (merge.rank == Merge::kNever) return false;
      heap_.push_back({merge.rank, left, symbols[left].length + symbols[right].length, merge.id});
      return true;
    };
    for (uint32_t i = 0; i < count; ++i) {
      previous_[i] = i == 0 ? kEnd : i - 1;
      next_[i] = i + 1 == count ? kEnd : i + 1;
      if (next_[i] != kEnd) consider(i, i + 1);
    }
    std::make_heap(heap_.begin(), heap_.end());
    const auto push = [&](uint32_t left, uint32_t right) {
      if (consider(left, right)) std::push_heap(heap_.begin(), heap_.end());
    };
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end());
      const Candidate top = heap_.back();
      heap_.pop_back();
      Symbol& left = symbols[top.left];
      const uint32_t right_index = next_[top.left];
      if (left.length == 0 || right_index == kEnd) continue;
      Symbol& right = symbols[right_index];
      if (left.length + right.length != top.length) continue;
      left.length = top.length;
      left.id = top.id;
      right.length = 0;
      next_[top.left] = next_[right_index];
      if (next_[top.left] != kEnd) previous_[next_[top.left]] = top.left;
      if (previous_[top.left] != kEnd) push(previous_[top.left], top.left);
      if (next_[top.left] != kEnd) push(top.left, next_[top.left]);
    }
    std::erase_if(symbols, [](const Symbol& symbol) { return symbol.length == 0; });
  }

  std::vector<Merge> pairs_;
  std::vector<Candidate> heap_;
  std::vector<uint32_t> next_;
  std::vector<uint32_t> previous_;
};

}  // namespace chainpump::models
