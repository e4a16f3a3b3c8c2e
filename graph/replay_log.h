// What a stage sent on, kept so that it can be sent again when a stage after it has lost what it
// made of that: rows by KV block and offset, as the lane names its blocks, so what several
// sequences share is kept once, like their KV. Of a block a prefix is kept. Bounded: the block that
// was not used for longest gives way first, whole. A position that is missing costs one computation
// from further up.
//
// Pure; one thread. Memory is taken as blocks are first logged, and never more than the bound.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <vector>

#include "base/ids.h"
#include "graph/lane_fill.h"

namespace chainpump::graph {

struct ReplayLogOptions {
  int32_t num_blocks = 0;  // of the lane, from 0
  int32_t block_tokens = 0;
  int32_t row_floats = 0;
  int64_t max_bytes = 0;
};

class ReplayLog {
 public:
  explicit ReplayLog(const ReplayLogOptions& options);

  /// The row of the position at `offset` of a block was sent on. `is_new`: it was computed for the
  /// first time, and what is kept from there on is of somebody who had the block before. A row that
  /// leaves a gap is not kept. With `keep` no block gives way to another.
  void add(KvBlockId block, int32_t offset, std::span<const float> row, bool is_new, bool keep);
  /// As the KV block was copied.
  void copy(KvBlockId from, KvBlockId to, bool keep);

  /// How many positions of a block are kept, from its first on.
  int32_t num_positions(KvBlockId block) const;
  /// [row_floats]; `offset` is less than num_positions(). Valid until the next add() or copy().
  std::span<const float> row(KvBlockId block, int32_t offset) const;
  std::vector<StageHoldings::Logged> all() const;
  int64_t bytes() const { return static_cast<int64_t>(order_.size()) * block_bytes_; }

 private:
  struct Entry {
    KvBlockId block;
    int32_t num_positions = 0;
    std::vector<float> rows;  // [block_tokens, row_floats]
  };
  using Order = std::list<Entry>;  // the one used last at the end

  Entry* find(KvBlockId block);
  const Entry* find(KvBlockId block) const;
  Entry* make(KvBlockId block, bool keep);
  void forget(KvBlockId block);

  ReplayLogOptions options_;
  int64_t block_bytes_;
  size_t max_entries_;
  Order order_;
  std::vector<Order::iterator> entries_;  // by block; end() where there is none
};

}  // namespace chainpump::graph
