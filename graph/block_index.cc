#include "graph/block_index.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace chainpump::graph {

BlockIndex::BlockIndex(int32_t max_entries) {
  CHECK_GE(max_entries, 0);
  slots_.resize(std::bit_ceil(static_cast<size_t>(max_entries) * 2 + 1));
  mask_ = slots_.size() - 1;
}

void BlockIndex::insert(uint64_t hash, int32_t block) {
  CHECK_GE(block, 0);
  CHECK_LT(static_cast<size_t>(size_), slots_.size() / 2);
  const uint32_t tag = tag_of(hash);
  size_t i = tag & mask_;
  while (slots_[i].block >= 0) i = (i + 1) & mask_;
  slots_[i] = {tag, block};
  ++size_;
}

size_t BlockIndex::slot_of(uint64_t hash, int32_t block) const {
  size_t i = tag_of(hash) & mask_;
  while (slots_[i].block != block) {
    CHECK_GE(slots_[i].block, 0);  // an end of the run before the entry: it is not here
    i = (i + 1) & mask_;
  }
  return i;
}

void BlockIndex::replace(uint64_t hash, int32_t from, int32_t to) {
  CHECK_GE(to, 0);
  slots_[slot_of(hash, from)].block = to;
}

// Closes the gap: each entry behind it moves up, unless that would put it before its own place.
void BlockIndex::erase(uint64_t hash, int32_t block) {
  size_t gap = slot_of(hash, block);
  for (size_t i = (gap + 1) & mask_; slots_[i].block >= 0; i = (i + 1) & mask_) {
    const size_t home = slots_[i].tag & mask_;
    if (((i - home) & mask_) < ((i - gap) & mask_)) continue;
    slots_[gap] = slots_[i];
    gap = i;
  }
  slots_[gap] = {};
  --size_;
}

void BlockIndex::clear() {
  std::fill(slots_.begin(), slots_.end(), Slot{});
  size_ = 0;
}

}  // namespace chainpump::graph
