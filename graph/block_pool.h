// The sequencer's account of one lane's KV blocks. A reservation promises that so many blocks can
// be taken later; blocks are ids only, the memory lives in the stages. Conserved at every step:
// free + taken = total, and reservations never exceed what is free. Pure; one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.h"

namespace chainpump::graph {

class BlockPool {
 public:
  explicit BlockPool(int32_t num_blocks);

  int32_t num_blocks() const { return num_blocks_; }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  int32_t num_unreserved() const { return num_free() - reserved_; }

  /// Sets `count` blocks aside; false (and nothing done) if there are not so many unreserved.
  bool reserve(int32_t count);
  /// Gives back `count` reserved blocks that were not taken.
  void unreserve(int32_t count);
  /// Takes one reserved block; the lowest ids come first, so that runs are repeatable.
  KvBlockId take();
  void give_back(const std::vector<KvBlockId>& blocks);

 private:
  int32_t num_blocks_;
  int32_t reserved_ = 0;
  std::vector<KvBlockId> free_;  // used as a stack
};

}  // namespace chainpump::graph
