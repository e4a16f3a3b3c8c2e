// What one stage holds of each sequence in KV: its block table, built from the frames, how many of
// its positions are written, and for each block in how many tables it stands and how far it is
// written. A microbatch is first checked as a whole against what is held, then applied; a refused
// one changes nothing. One thread.
//
// Blocks may stand in several tables (prefix hits, n > 1), and what a block holds outlives its last
// table, until someone else writes into it. Two rules keep sequences apart whatever a sequencer
// asks for: no position is read that has not been written, and none is written in a block that
// stands in more than one table. Whether a shared block holds the right tokens is the sequencer's
// account (graph/kv_cache.h), not this one's.
//
// Not here: K and V themselves (models/kv_pool.h), sampling state (models/llama/output_head.h).
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "graph/lane_fill.h"
#include "graph/microbatch.h"

namespace chainpump::models {

class SequenceTable {
 public:
  explicit SequenceTable(const graph::MicrobatchLimits& limits);

  /// invalid_argument naming the sequence or the block if the microbatch is larger than the limits,
  /// names a sequence without a descriptor, leaves a gap in positions, keeps more blocks than are
  /// held, uses a block that is out of range or given twice, reads a position that is not written,
  /// writes into a block that stands in two tables, or copies from a block that holds nothing or to
  /// one that stands in a table. Releasing an unknown sequence is fine: it may have been cancelled
  /// before its first frame came here. Positions that are held may be
  /// sliced again by who is described again.
  Status check(const graph::Microbatch& microbatch);

  /// Takes in the microbatch that was checked last: forgets, copies, learns, extends. After this a
  /// slice's sequence counts its tokens as held. The content of copied blocks is the caller's to
  /// move, before anything is computed.
  void apply(const graph::Microbatch& microbatch);

  /// Of the microbatch that was applied last: the first position of each slice to be written; those
  /// before it are held already.
  std::span<const int32_t> write_from() const { return write_from_; }

  /// Blocks of a sequence in order of position; valid until the next apply().
  std::span<const KvBlockId> block_table(SequenceId id) const;
  bool contains(SequenceId id) const { return sequences_.contains(id); }
  int32_t num_tokens(SequenceId id) const;  // positions held; 0 if unknown
  /// All of it, for a sequencer that may not know of the sequence; of one that is known.
  graph::StageHoldings::Held held(SequenceId id) const;
  /// Without what lies in blocks that it has not been told since it was described anew.
  graph::StageHoldings::Held held_as_told(SequenceId id) const;
  std::vector<SequenceId> ids() const;  // in no order
  /// How often a block was begun anew: while that is the same, a position of it that is written
  /// stays as it is.
  uint32_t times_begun(KvBlockId block) const {
    return blocks_[static_cast<size_t>(block.value)].times_begun;
  }
  /// Holds what another stage says that it holds, whose blocks' content is here. invalid_argument,
  /// and nothing is held, if that is beyond the limits or makes no sense, or anything is held
  /// already.
  Status take_over(std::span<const graph::StageHoldings::Held> sequences);
  size_t num_sequences() const { return sequences_.size(); }
  /// Blocks that stand in some table.
  int32_t num_blocks_held() const { return num_blocks_held_; }

 private:
  struct Sequence {
    uint64_t identity = 0;  // as last described
    uint32_t index = 0;
    std::vector<KvBlockId> blocks;
    std::vector<KvBlockId> untold;  // after them, from before it was described anew
    int32_t num_tokens = 0;
    int32_t next_position = 0;  // of the slice that goes on where the last one ended
  };
  struct Block {
    int32_t num_tables = 0;
    int32_t num_written = 0;  // positions from its first on
    uint32_t times_begun = 0;
  };

  graph::StageHoldings::Held held_in(SequenceId id, std::vector<KvBlockId> table) const;
  static void keep_untold(Sequence& sequence, const graph::SequenceSlice& slice);
  Status check_counts(const graph::Microbatch& microbatch);
  Status check_copies(const graph::Microbatch& microbatch);
  Status check_slice(const graph::SequenceSlice& slice);
  Status draft_table(const graph::SequenceSlice& slice);
  Status draft_writes(const graph::SequenceSlice& slice);
  Status check_in_range(KvBlockId block) const;
  Status check_held(const graph::StageHoldings::Held& held);
  const Sequence* find_kept(SequenceId id) const;
  Block& draft(KvBlockId block);

  graph::MicrobatchLimits limits_;
  std::unordered_map<SequenceId, Sequence> sequences_;
  std::vector<Block> blocks_;  // [num_kv_blocks]
  int32_t num_blocks_held_ = 0;

  // What the microbatch being checked would make of the blocks it touches; apply() makes it so.
  std::vector<Block> drafts_;         // [num_kv_blocks]; valid where drafted_in_ says so
  std::vector<uint64_t> drafted_in_;  // [num_kv_blocks]: the check that drafted it last
  std::vector<KvBlockId> drafted_;
  uint64_t check_number_ = 0;
  bool checked_ = false;            // what was checked last may be applied, once
  std::vector<uint64_t> given_in_;  // [num_kv_blocks]: the slice that named it last
  uint64_t slice_number_ = 0;
  std::vector<SequenceId> released_;   // of the microbatch, sorted, each once
  std::vector<SequenceId> described_;  // likewise
  std::vector<SequenceId> sliced_;
  std::vector<int32_t> write_from_;
};

}  // namespace chainpump::models
