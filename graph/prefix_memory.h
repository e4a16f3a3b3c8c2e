// What the router remembers of the prompts it has routed: which lanes have seen which prefix, by
// chained hashes of their blocks. A hint and no more: a lane may have evicted a prefix since, and
// hashes are not confirmed; a wrong one costs time, never a wrong token. Bounded; the least
// recently used goes first, a chain's tail before its head. Pure; one thread.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

namespace chainpump::graph {

constexpr size_t kMaxLanes = 256;  // a sequence id has 8 bits for its lane

class PrefixMemory {
 public:
  /// 0 blocks: remembers nothing.
  explicit PrefixMemory(size_t max_blocks);

  /// `chain`: the hashes of a prompt's whole blocks in order. Result [lane]: how many of them, from
  /// the first, that lane has seen. Changes nothing.
  std::array<int32_t, kMaxLanes> num_seen(std::span<const uint64_t> chain) const;
  /// This lane will have seen them all.
  void remember(std::span<const uint64_t> chain, size_t lane);
  /// What this lane has seen is lost.
  void forget(size_t lane);
  size_t size() const { return blocks_.size(); }

 private:
  struct Block {
    uint64_t hash = 0;
    std::bitset<kMaxLanes> lanes;
  };
  size_t max_blocks_;
  std::list<Block> blocks_;  // the least recently used last
  std::unordered_map<uint64_t, std::list<Block>::iterator> places_;
};

}  // namespace chainpump::graph
