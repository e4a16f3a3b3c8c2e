// The sequencer: the scheduler of one lane, as a pure core. It keeps the running set, forms
// microbatches, and accounts for the KV blocks of every stage of its lane (they all use the same
// ids, so one account serves them all). It has no clock, thread or link: the shell asks next() when
// the first stage could run something, and hands back each StepResult.
//
// A sequence's life:
//   waiting --blocks reserved, place in the running set--> running --finish/cancel--> releasing
//   releasing --its release travels in the next microbatch--> gone
// Blocks are free for others in that very microbatch: stages work in order and release first, so no
// later frame can meet an earlier owner.
//
// A running sequence has `num_sent` positions under way or done, out of the tokens it knows. What
// lies between is sent in chunks, prompt and generated tokens alike, so that a resumed sequence
// needs no rule of its own. Several chunks of one prompt may be in flight at once.
// Pure; one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "graph/block_pool.h"
#include "graph/microbatch.h"

namespace chainpump::graph {

struct SequencerOptions {
  int32_t num_stages = 1;
  int32_t context_tokens = 0;
  int32_t prefill_chunk_tokens = 0;   // prompt tokens in one microbatch
  int32_t max_microbatch_tokens = 0;  // all tokens in one microbatch
  int32_t max_sequences = 0;          // running at once
  int32_t max_queued = 1024;          // waiting for a place
  int32_t max_microbatches = 0;       // in flight
  int32_t block_tokens = 0;
  int32_t num_kv_blocks = 0;
  int32_t vocabulary_size = 0;
};

/// What a StepResult meant for the sequences it concerns, in order.
struct Deliveries {
  std::vector<TokenResult> tokens;
  std::vector<ScoreResult> scores;
  std::vector<std::pair<SequenceId, FinishReason>> finished;
};

class Sequencer {
 public:
  explicit Sequencer(const SequencerOptions& options);

  /// Queues a sequence and gives it its id (the descriptor's own is ignored). A generation that
  /// would pass the context is cut to it (finish reason length). invalid_argument if prompt or
  /// parameters cannot be served at all; overloaded if the queue is full.
  Result<SequenceId> submit(SequenceDescriptor descriptor);

  /// Forgets a sequence, waiting or running; nothing more is delivered for it. Unknown ids are
  /// ignored: it may have finished just now.
  void cancel(SequenceId id);

  /// The next microbatch, if there is work and fewer than max_microbatches are in flight.
  std::optional<Microbatch> next();

  /// Takes the result of the oldest microbatch in flight. internal if it is not its result.
  Status on_result(const StepResult& result, Deliveries& out);

  /// True if nothing waits, runs or is in flight.
  bool idle() const;
  int32_t num_in_flight() const { return static_cast<int32_t>(in_flight_.size()); }
  int32_t num_free_blocks() const { return blocks_.num_free(); }

 private:
  struct Sequence {
    SequenceDescriptor descriptor;
    std::vector<TokenId> tokens;  // prompt, then generated
    int32_t num_needed = 0;       // positions that must pass through the stages, from `tokens`
    int32_t num_sent = 0;
    int32_t num_scores_due = 0;
    bool described = false;  // its descriptor has been sent
    std::vector<KvBlockId> blocks;
    int32_t blocks_reserved = 0;  // and not yet taken
    bool scoring() const { return descriptor.score.first_position >= 0; }
    int32_t num_pending() const { return num_needed - num_sent; }
  };

  void admit();
  void add_slice(Sequence& sequence, int32_t num_tokens, Microbatch& microbatch);
  void release(SequenceId id);
  int32_t blocks_for(int32_t num_tokens) const;

  SequencerOptions options_;
  BlockPool blocks_;
  uint64_t last_sequence_ = 0;
  uint64_t last_microbatch_ = 0;
  std::deque<SequenceId> waiting_;
  std::map<SequenceId, Sequence> sequences_;  // by age
  std::vector<SequenceId> running_;           // by age
  std::vector<SequenceId> releasing_;
  std::deque<MicrobatchId> in_flight_;
};

}  // namespace chainpump::graph
