// A chain of stages as a sequencer sees it, without a model: it does what microbatches say, in
// order, and remembers for every position of every KV block which token stands there, at which
// position of a sequence, under which salt. Whatever a slice reads must be exactly what its own
// sequence would have computed; so a missed copy, a block reused too early, an off by one or a
// shared cache between salts shows at once. Tokens are a hash of what is read: a pure function of
// the request, so a run can be compared with expected_tokens(). Pure; one thread.
#pragma once

#include <map>
#include <span>
#include <vector>

#include "base/result.h"
#include "graph/microbatch.h"
#include "graph/request.h"

namespace chainpump::fakes {

struct KvChainOptions {
  int32_t block_tokens = 4;
  int32_t first_block = 0;
  int32_t num_blocks = 0;
  int32_t max_sequences = 0;
  int32_t max_tokens = 0;
  TokenId vocabulary_size = 100;
};

class KvChain {
 public:
  /// Every such token ends a sequence, unless it ignores the end.
  static constexpr TokenId kEnd = 7;

  explicit KvChain(const KvChainOptions& options);

  /// What a stage makes of the microbatch: one that does not compute it only forgets and copies.
  /// internal, saying what is wrong with it: a sequence
  /// that is not held, a gap, a position read that holds something else, a block written that
  /// others have too, more of anything than fits.
  Result<graph::StepResult> run(const graph::Microbatch& microbatch, bool computes = true);
  /// Whether it holds what the slice, with its whole table, would compute.
  bool holds(const graph::SequenceSlice& slice, uint64_t seed) const;

  /// From here on a sequence may be described again, computed again, and released though unknown:
  /// some stage has lost what it held.
  void set_repaired() { repaired_ = true; }

  size_t num_held() const { return held_.size(); }
  bool holds(SequenceId id) const { return held_.contains(id); }
  /// Blocks that stand in some table, as of the last microbatch.
  int32_t num_blocks_held() const;
  /// Whether it holds a sequence that was described with this seed.
  bool holds_seed(uint64_t seed) const;

  /// Sequences whose seeds have equal upper halves may share blocks.
  static uint64_t salt_of(uint64_t seed) { return seed >> 32; }
  /// What a sequence generates, with its finish, whatever becomes of it on the way.
  static std::vector<graph::TokenResult> expected_tokens(
      const graph::SequenceDescriptor& descriptor, TokenId vocabulary_size);
  /// What one choice of a request generates where `context_tokens` are served.
  static std::vector<graph::TokenResult> expected_tokens(const graph::Request& request,
                                                         int32_t choice, int32_t context_tokens,
                                                         TokenId vocabulary_size);
  /// The score of each position from `first` on.
  static std::vector<graph::ScoreResult> expected_scores(std::span<const TokenId> prompt,
                                                         int32_t first, TokenId vocabulary_size);

 private:
  struct Written {
    TokenId token = -1;
    int32_t position = -1;
    uint64_t salt = 0;
    bool operator==(const Written&) const = default;
  };
  struct Held {
    graph::SequenceDescriptor descriptor;
    std::vector<TokenId> tokens;  // known, then made
    std::vector<KvBlockId> table;
    int32_t num_tokens = 0;  // positions held
    int32_t write_from = 0;  // of the slice in hand
    bool begun = false;
  };

  Status take_in(const graph::Microbatch& microbatch);
  Status take_in(const graph::SequenceSlice& slice);
  Status check_reads(const graph::SequenceSlice& slice) const;
  Status write(const graph::SequenceSlice& slice);
  void compute(const graph::SequenceSlice& slice, graph::StepResult& result);
  bool is_block(KvBlockId block) const;
  Written& at(KvBlockId block, int32_t offset);
  const Written& at(KvBlockId block, int32_t offset) const;

  KvChainOptions options_;
  bool repaired_ = false;
  std::map<SequenceId, Held> held_;
  std::vector<Written> content_;     // [num_blocks, block_tokens]
  std::vector<int32_t> num_tables_;  // [num_blocks]: in how many it stands
};

}  // namespace chainpump::fakes
