// Which positions of a lane's KV blocks each of its stages holds after some were lost, and which of
// them it has logged what it sent on for: from that follows which stages compute which positions
// again, and where their inputs come from. Block ids are the lane's, so a block that several
// sequences share is rebuilt once.
//
// The rule. A stage that does not hold a position lacks it. A position that must be computed is
// computed by the stages from the first that lacks it to the last that does before one that has
// logged it; those between that hold it compute it without writing. Their input is what the stage
// before the first has logged; if it has not, the span begins at the nearest stage further up whose
// input was logged, else at the first stage, with the tokens. Whoever lacks it further down is
// next, from that log. If the position's result is needed the span goes to the last stage of all at
// once.
//
// What a stage holds of a block is a prefix of it, and so is what it has logged, of what it holds.
// Pure; one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "graph/microbatch.h"

namespace chainpump::graph {

/// What one stage holds when nothing is on its way any more: of sequences by their tables, and of
/// what it has logged by blocks.
struct StageHoldings {
  struct Held {
    SequenceId id;
    int32_t num_positions = 0;
    // For a sequencer that has not seen the sequence: whose it is, and where its positions lie.
    uint64_t identity = 0;  // its request's (graph/request.h)
    uint32_t index = 0;     // of the choice
    std::vector<KvBlockId> table = {};
  };
  struct Logged {
    KvBlockId block;
    int32_t num_positions = 0;  // from the block's first on
  };
  StageIndex stage;
  std::vector<Held> held;
  std::vector<Logged> logged;
};

class LaneFill {
 public:
  LaneFill(int32_t num_stages, int32_t first_block, int32_t num_blocks, int32_t block_tokens);

  /// The stage holds the first `num_positions` of a sequence with this table. Of a block that
  /// stands in several tables the most that is said of it counts.
  void hold(StageIndex stage, std::span<const KvBlockId> table, int32_t num_positions);
  /// After all hold(): it has logged the first `num_positions` of a block.
  void log(StageIndex stage, KvBlockId block, int32_t num_positions);

  /// Positions that the same stages compute, from inputs of the same origin.
  struct Stretch {
    int32_t begin = 0;
    int32_t end = 0;
    StageSpan stages;  // `last` is a stage's index, never kEnd
    bool operator==(const Stretch&) const = default;
  };
  /// The first positions at or after `from` and before `end` that some stage lacks, or, from
  /// `results_from` on, whose results are needed: as many as one span serves. Some stages may lack
  /// them still when these have computed them. Empty: there are none. `table` has blocks for all.
  std::optional<Stretch> next(std::span<const KvBlockId> table, int32_t from, int32_t end,
                              int32_t results_from) const;

  /// What the block held is nobody's any more: no stage holds or has logged any of it.
  void forget(KvBlockId block);

  /// Those stages hold these positions, too, from the next microbatch on.
  void fill(std::span<const KvBlockId> table, int32_t begin, int32_t end, StageSpan stages);

  int32_t num_stages() const { return num_stages_; }

 private:
  size_t at(int32_t stage, KvBlockId block) const {
    return static_cast<size_t>(stage) * num_blocks_ +
           static_cast<size_t>(block.value - first_block_);
  }
  std::optional<StageSpan> span_of(KvBlockId block, int32_t offset, bool needs_result) const;

  int32_t num_stages_;
  int32_t first_block_;
  size_t num_blocks_;
  int32_t block_tokens_;
  std::vector<int32_t> held_;    // [num_stages, num_blocks]: positions, from the block's first on
  std::vector<int32_t> logged_;  // likewise
};

}  // namespace chainpump::graph
