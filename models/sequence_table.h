// What one stage holds of each sequence in KV: its block table, built from the frames, and how many
// positions are written. A microbatch is first checked as a whole against what is held, then
// applied; a refused one changes nothing. One thread.
//
// Not here: K and V themselves (models/kv_pool.h), sampling state (models/llama/output_head.h).
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "graph/microbatch.h"

namespace chainpump::models {

class SequenceTable {
 public:
  explicit SequenceTable(const graph::MicrobatchLimits& limits);

  /// invalid_argument naming the sequence if the microbatch is larger than the limits, names a
  /// sequence without a descriptor, leaves a gap in positions, skips blocks, or uses a block that
  /// is out of range, another sequence's, or given twice. Releasing an unknown sequence is fine:
  /// it may have been cancelled before its first frame came here.
  Status check(const graph::Microbatch& microbatch);

  /// Takes a checked microbatch in: forgets, learns, extends. After this a slice's sequence counts
  /// its tokens as held.
  void apply(const graph::Microbatch& microbatch);

  /// Blocks of a sequence in order of position; valid until the next apply().
  std::span<const KvBlockId> block_table(SequenceId id) const;
  bool contains(SequenceId id) const { return sequences_.contains(id); }
  int32_t num_tokens(SequenceId id) const;  // positions held; 0 if unknown
  size_t num_sequences() const { return sequences_.size(); }
  int32_t num_blocks_held() const { return num_blocks_held_; }

 private:
  struct Sequence {
    std::vector<KvBlockId> blocks;
    int32_t num_tokens = 0;
  };

  Status check_slice(const graph::Microbatch& microbatch, const graph::SequenceSlice& slice);
  Status check_blocks(const graph::Microbatch& microbatch, const graph::SequenceSlice& slice);
  Status check_counts(const graph::Microbatch& microbatch);
  const Sequence* find_kept(const graph::Microbatch& microbatch, SequenceId id) const;
  void release(SequenceId id);

  graph::MicrobatchLimits limits_;
  std::unordered_map<SequenceId, Sequence> sequences_;
  std::vector<SequenceId> owner_;   // [num_kv_blocks]; 0: free
  std::vector<uint64_t> given_in_;  // [num_kv_blocks]: the check that last saw it given
  uint64_t check_number_ = 0;
  std::vector<SequenceId> scratch_ids_;
  int32_t num_blocks_held_ = 0;
};

}  // namespace chainpump::models
