// The merges of a long word that wait for their turn: lowest rank first, the leftmost among equals.
// Ranks fall into buckets that are sorted only when their turn comes, by then from memory that a
// core's cache holds; a binary heap over a long text misses the cache at every level. A merge that
// comes late, for the bucket being emptied or one before it, goes to a small heap beside it: so the
// order is exact whatever is pushed when, in O(n log n). One thread per object; keeps its memory.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace chainpump::models {

class MergeQueue {
 public:
  struct Entry {
    int32_t rank;
    uint32_t left;  // index of the left symbol
  };

  /// Empties it for a word of `num_symbols` and ranks in [0, num_ranks).
  void reset(size_t num_symbols, int32_t num_ranks) {
    const size_t wanted = std::bit_ceil(std::clamp<size_t>(num_symbols / 16, 1, 1024));
    const auto rank_bits = static_cast<int>(std::bit_width(static_cast<uint32_t>(num_ranks)));
    shift_ = std::max(0, rank_bits - std::countr_zero(wanted));
    buckets_.resize(wanted);
    for (std::vector<uint64_t>& bucket : buckets_) bucket.clear();
    late_.clear();
    opened_ = 0;
    next_ = 0;
  }

  void push(int32_t rank, uint32_t left) {
    const uint64_t key = uint64_t{static_cast<uint32_t>(rank)} << 32 | left;
    const size_t bucket = static_cast<uint32_t>(rank) >> shift_;
    if (bucket >= opened_) return buckets_[bucket].push_back(key);
    late_.push_back(key);
    std::push_heap(late_.begin(), late_.end(), std::greater<>());
  }

  /// The first in order, taken out; none once it is empty.
  std::optional<Entry> pop() {
    while (opened_ == 0 || (next_ == current().size() && late_.empty()))
      if (!open_next()) return std::nullopt;
    uint64_t key = 0;
    if (next_ < current().size() && (late_.empty() || current()[next_] < late_.front())) {
      key = current()[next_++];
    } else {
      std::pop_heap(late_.begin(), late_.end(), std::greater<>());
      key = late_.back();
      late_.pop_back();
    }
    return Entry{static_cast<int32_t>(key >> 32), static_cast<uint32_t>(key)};
  }

  /// After a pop(): the left symbol of an entry that will come some pops later, if all goes in
  /// order.
  uint32_t later() {
    constexpr size_t kAhead = 12;
    const size_t at = std::min(next_ + kAhead, current().size());
    return at == 0 ? 0 : static_cast<uint32_t>(current()[at - 1]);
  }

 private:
  std::vector<uint64_t>& current() { return buckets_[opened_ - 1]; }

  bool open_next() {
    if (opened_ == buckets_.size()) return false;
    ++opened_;
    next_ = 0;
    if (!std::is_sorted(current().begin(), current().end()))
      std::sort(current().begin(), current().end());
    return true;
  }

  std::vector<std::vector<uint64_t>> buckets_;  // rank << 32 | left: sorts as the order asks
  std::vector<uint64_t> late_;
  int shift_ = 0;
  size_t opened_ = 0;  // buckets that are sorted; the last of them is being emptied
  size_t next_ = 0;    // its first entry not yet taken
};

}  // namespace chainpump::models
