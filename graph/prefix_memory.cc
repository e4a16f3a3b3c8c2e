#include "graph/prefix_memory.h"

#include "base/check.h"

namespace chainpump::graph {

PrefixMemory::PrefixMemory(size_t max_blocks) : max_blocks_(max_blocks) {}

std::array<int32_t, kMaxLanes> PrefixMemory::num_seen(std::span<const uint64_t> chain) const {
  std::array<int32_t, kMaxLanes> result{};
  std::bitset<kMaxLanes> lanes;
  lanes.set();
  for (const uint64_t hash : chain) {
    const auto place = places_.find(hash);
    if (place == places_.end()) break;
    lanes &= place->second->lanes;
    if (lanes.none()) break;
    for (size_t lane = lanes._Find_first(); lane < kMaxLanes; lane = lanes._Find_next(lane))
      ++result[lane];
  }
  return result;
}

// From the last to the first, so that the first is the most recent and the last goes before it. Of
// a chain that is longer than the memory only the beginning is worth anything.
void PrefixMemory::remember(std::span<const uint64_t> chain, size_t lane) {
  CHECK_LT(lane, kMaxLanes);
  if (chain.size() > max_blocks_) chain = chain.first(max_blocks_);
  for (auto hash = chain.rbegin(); hash != chain.rend(); ++hash) {
    const auto [place, is_new] = places_.try_emplace(*hash);
    if (is_new)
      place->second = blocks_.insert(blocks_.begin(), Block{*hash, {}});
    else
      blocks_.splice(blocks_.begin(), blocks_, place->second);
    place->second->lanes.set(lane);
  }
  while (blocks_.size() > max_blocks_) {
    places_.erase(blocks_.back().hash);
    blocks_.pop_back();
  }
}

void PrefixMemory::forget(size_t lane) {
  CHECK_LT(lane, kMaxLanes);
  for (auto block = blocks_.begin(); block != blocks_.end();) {
    block->lanes.reset(lane);
    if (block->lanes.any()) {
      ++block;
      continue;
    }
    places_.erase(block->hash);
    block = blocks_.erase(block);
  }
}

}  // namespace chainpump::graph
