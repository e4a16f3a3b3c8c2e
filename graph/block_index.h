// Which KV block is published under a content hash: an open-addressing table of fixed size, made
// for one thing: a look-up that misses the cache once. Several blocks may stand under one hash
// (collisions): the caller says which one it means. Pure; one thread; never grows, O(1) expected.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace chainpump::graph {

class BlockIndex {
 public:
  /// Room for `max_entries` at half load.
  explicit BlockIndex(int32_t max_entries);

  void insert(uint64_t hash, int32_t block);
  /// The entry (hash, from) now names `to`. It must be there.
  void replace(uint64_t hash, int32_t from, int32_t to);
  /// It must be there.
  void erase(uint64_t hash, int32_t block);
  void clear();
  int32_t size() const { return size_; }

  /// The first block under `hash` (or one that looks like it: 32 bits are compared) for which
  /// `is_it(block)` is true, or -1.
  template <typename IsIt>
  int32_t find(uint64_t hash, IsIt&& is_it) const {
    const uint32_t tag = tag_of(hash);
    for (size_t i = tag & mask_; slots_[i].block >= 0; i = (i + 1) & mask_)
      if (slots_[i].tag == tag && is_it(slots_[i].block)) return slots_[i].block;
    return -1;
  }

 private:
  // The tag's low bits are the slot it would like to stand in; so an entry can be moved without its
  // whole hash.
  struct Slot {
    uint32_t tag = 0;
    int32_t block = -1;
  };
  static uint32_t tag_of(uint64_t hash) { return static_cast<uint32_t>(hash ^ hash >> 32); }
  size_t slot_of(uint64_t hash, int32_t block) const;

  std::vector<Slot> slots_;
  size_t mask_ = 0;
  int32_t size_ = 0;
};

}  // namespace chainpump::graph
