#include "graph/block_pool.h"

#include "base/check.h"

namespace chainpump::graph {

BlockPool::BlockPool(int32_t num_blocks) : num_blocks_(num_blocks) {
  CHECK_GT(num_blocks, 0);
  free_.reserve(static_cast<size_t>(num_blocks));
  for (int32_t i = num_blocks - 1; i >= 0; --i) free_.push_back(KvBlockId(i));
}

bool BlockPool::reserve(int32_t count) {
  CHECK_GE(count, 0);
  if (count > num_unreserved()) return false;
  reserved_ += count;
  return true;
}

void BlockPool::unreserve(int32_t count) {
  CHECK_GE(count, 0);
  CHECK_LE(count, reserved_);
  reserved_ -= count;
}

KvBlockId BlockPool::take() {
  CHECK_GT(reserved_, 0);
  CHECK(!free_.empty());
  const KvBlockId block = free_.back();
  free_.pop_back();
  --reserved_;
  return block;
}

void BlockPool::give_back(const std::vector<KvBlockId>& blocks) {
  CHECK_LE(free_.size() + blocks.size(), static_cast<size_t>(num_blocks_));
  free_.insert(free_.end(), blocks.rbegin(), blocks.rend());
}

}  // namespace chainpump::graph
