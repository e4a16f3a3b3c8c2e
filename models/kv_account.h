// Which blocks of a stage's KV somebody else has a copy of, as they are: what is left to be copied
// while the stage goes on (graph/rank_move.h). A position that is written stays as it is until its
// block is begun anew (models/sequence_table.h), so of each block it is enough to know how far it
// was written when it was copied, and which time it was begun.
//
// Blocks are found in rounds over all that is held. While the stage works only full blocks are
// worth a copy: the last of each sequence changes with the next step. One thread, the stage's.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/ids.h"
#include "models/sequence_table.h"

namespace chainpump::models {

class KvAccount {
 public:
  /// Of a block as it is now.
  struct Version {
    SequenceId sequence;  // some sequence that it is of
    KvBlockId block;
    int32_t num_written = 0;
    uint32_t times_begun = 0;
  };

  explicit KvAccount(size_t num_blocks) : copied_(num_blocks) {}

  /// Begins a round; with `all`, partly filled blocks are found, too.
  void begin_round(const SequenceTable& table, bool all);
  /// The next block of the round that is held and not copied as it is; empty at its end.
  std::optional<Version> next(const SequenceTable& table);
  /// It was copied, from when it was that version.
  void note_copied(const Version& version);
  /// How many blocks the round has found.
  int64_t num_found() const { return num_found_; }

 private:
  struct Copied {
    int32_t num_written = 0;
    uint32_t times_begun = 0;
  };
  std::vector<Copied> copied_;   // by block
  std::vector<SequenceId> ids_;  // of the round
  bool all_ = false;
  size_t sequence_ = 0;  // in ids_
  int32_t index_ = 0;    // in its table
  int64_t num_found_ = 0;
};

}  // namespace chainpump::models
