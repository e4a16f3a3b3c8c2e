// The sequencer: the scheduler of one lane, as a pure core. It takes requests, decides who runs,
// forms microbatches, and accounts for the KV blocks of every stage of its lane (they all use the
// same ids, so one account serves them all; the smallest pool decides). It has no clock, thread or
// link: the shell asks next() when the first stage could run something, hands back each StepResult,
// and says what time it is.
//
// A sequence's life:
//   submit    -> refused | queued | held, if an earlier choice of its request computes the prompt
//   held      --that choice has sent all of the prompt but its last position--> queued
//   queued    --its turn in the fair queue, room in the KV--> running (begins with shared blocks:
//               cached ones of an equal prefix, or its sibling's and a copy of the partial one)
//   running   --no block left for one that ranks higher--> drained (blocks back, stages forget it)
//   drained   --nothing of it in flight any more--> queued, before others of its tenant
//   any       --finish | cancel | deadline--> gone (stages forget it in the next microbatch)
// One ranks higher by priority, then by age. The highest of those running is never preempted and
// may preempt all others, and a lone sequence fits (submit sees to it): so there is always
// progress. By the one law none of this changes a token: a sequence that is described anew, with
// what it has generated, goes on as if nothing had been.
//
// Blocks are free for others in the very microbatch that releases them, and may be shared by others
// from the microbatch after the one that fills them: stages work in order (graph/microbatch.h).
//
// A microbatch takes its share of the decoding sequences, then prefill for as long as the step may
// take: T = a + sqrt(a W / (S - 1)), for a step's overhead a, the work W of all prefill that waits,
// and S stages: what makes filling the chain and the overhead of many small chunks together least.
// While others decode, at most what their part takes and decode_delay_max / max_microbatches, and
// spread over several rounds of the chain, as their microbatches cost their overhead anyway.
// Pure; one thread. Not here: the queue (fair_queue.h), the blocks (kv_cache.h), time
// (step_cost.h).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "graph/fair_queue.h"
#include "graph/kv_cache.h"
#include "graph/lane_fill.h"
#include "graph/microbatch.h"
#include "graph/request.h"
#include "graph/sequence_store.h"
#include "graph/step_cost.h"

namespace chainpump::graph {

/// What this lane may use of a stage.
struct StageRoom {
  std::string name;
  int32_t num_kv_blocks = 0;
};

struct SequencerOptions {
  uint8_t lane = 0;               // top 8 bits of the sequence ids
  std::vector<StageRoom> stages;  // in chain order
  int32_t first_kv_block = 0;     // the lane's blocks begin here
  int32_t block_tokens = 0;
  int32_t context_tokens = 0;
  int32_t max_microbatch_tokens = 0;  // all tokens of one microbatch
  int64_t max_metadata_bytes = 0;     // that one microbatch may take, encoded; 0: any number
  int32_t prefill_chunk_tokens = 0;   // of one microbatch; 0: as many as the time allows
  int32_t max_sequences = 0;          // running at once
  int32_t max_queued = 1024;          // sequences waiting
  int32_t max_microbatches = 0;       // in flight
  int32_t vocabulary_size = 0;
  bool prefix_cache = true;
  Duration decode_delay_max{0};  // what prefill may add to the time between two tokens
  StepCost::Coefficients cost_prior;
};

struct SequencerStats {
  int32_t num_running = 0;
  int32_t num_waiting = 0;        // in any state but running
  int32_t num_preempted_now = 0;  // of those waiting
  // Since some was lost: of those running, not told to all stages; and those to be forgotten for
  // whom the next microbatch has no room.
  int32_t num_repairing = 0;
  int32_t num_orphans = 0;      // of a sequencer before this one, that nobody has asked for again
  int32_t num_in_flight = 0;    // microbatches
  int32_t num_free_blocks = 0;  // cached ones among them
  int32_t num_cached_blocks = 0;
  int32_t num_blocks = 0;
  uint64_t prompt_tokens_sent = 0;  // known tokens: of prompts, and again after a preemption
  uint64_t prompt_tokens_hit = 0;   // that did not need to be sent, as their blocks were shared
  uint64_t tokens_generated = 0;
  uint64_t preemptions = 0;
  uint64_t positions_rebuilt = 0;  // computed again by some stages only
  uint64_t sequences_adopted = 0;  // of a sequencer before this one
  int64_t waiting_tokens = 0;      // known tokens of those in the queue
};

class Sequencer {
 public:
  explicit Sequencer(const SequencerOptions& options);

  /// Takes a request in. A generation that would pass the context is cut to it (finish reason
  /// length). Nothing is kept of a refused one: invalid_argument if it can never be served,
  /// deadline_exceeded if its time is over, overloaded if the queue is full: then the message names
  /// the stage that is and retry_after().
  Status submit(Request request, TimePoint now);

  /// How long a refused client should wait: until the present queue has gone, at the rate at which
  /// others leave now.
  Duration retry_after() const;

  /// Ends every choice of a request, or one. Nothing more is delivered for it, and what it held on
  /// the stages is free with the next microbatch. Unknown ones are ignored: they may have finished
  /// just now.
  void cancel(RequestId id);
  void cancel(RequestId id, uint32_t choice);

  /// The next microbatch, if there is anything to do and fewer than max_microbatches are in flight.
  /// It must be sent: later ones build on it.
  std::optional<Microbatch> next();

  /// Takes the result of the oldest microbatch in flight; adds what it meant to `out`. internal if
  /// it is not its result.
  Status on_result(const StepResult& result, TimePoint now, Deliveries& out);

  /// Some stages have lost what they held; they are there again, empty, and nothing of what was in
  /// flight will come to a result. `stages`: what the others hold; who is not named holds nothing.
  /// What is missing of each sequence that runs is computed again (graph/lane_fill.h says by whom),
  /// the highest first, and each goes on as soon as it is whole. What is cached is forgotten.
  void repair(std::span<const StageHoldings> stages);

  /// The same of a sequencer that is new, for a lane that was at work before: what its stages hold
  /// of sequences that it never saw is theirs again as soon as their requests are submitted again
  /// (Request::identity), and is kept for them for a while, unless others need the room. Before
  /// anything is submitted.
  void adopt(std::span<const StageHoldings> stages, TimePoint now);

  /// Ends what is past its deadline.
  void on_time(TimePoint now, Deliveries& out);
  /// When on_time() is due next.
  std::optional<TimePoint> next_deadline() const;

  /// True if nothing waits, runs, is to be forgotten or is in flight.
  bool idle() const;
  int32_t num_in_flight() const { return static_cast<int32_t>(in_flight_.size()); }
  SequencerStats stats() const;
  /// Who has KV blocks; in no order.
  std::vector<SequenceId> running() const;
  /// What steps cost, as learned so far.
  const StepCost& step_cost() const { return cost_; }

 private:
  struct InFlight {
    MicrobatchId id;
    StepWork work;
    std::vector<SequenceId> members;
    int32_t num_decodes = 0;  // of the members
    bool crosses = false;     // some token of it passes all stages
  };
  struct Draft;  // a microbatch being formed (sequencer_draft.h)

  // Taking in, ending (sequencer.cc).
  Status check(const Request& request) const;
  void end(Sequence& sequence);
  void end_all(RequestRecord& request);
  void stop_running(Sequence& sequence);
  void lead_on(RequestRecord& request);

  // Results (sequencer_results.cc).
  Status take_token(const TokenResult& token, Deliveries& out);
  Status take_score(const ScoreResult& score, Deliveries& out);
  void note_ends(size_t count, TimePoint now);

  // Who runs (admission.cc).
  Status check_size(const Request& request) const;
  Status check_room(const Request& request) const;
  void enqueue(Sequence& sequence, bool first);
  void count_out(const Sequence& sequence);
  bool admit_next(Draft& draft);
  bool make_room(Sequence& sequence, Draft& draft);
  int32_t num_wanted(const Sequence& sequence, int32_t num_shared) const;
  bool lacks_room(const Sequence& sequence, int32_t num_shared) const;
  void extend_to_known(Sequence& sequence);
  std::optional<KvBlockId> allocate();
  std::optional<KvBlockId> share_prefix(Sequence& sequence, const Draft& draft);
  bool may_fork(const Sequence& sequence, const Sequence* leader, const Draft& draft) const;
  std::optional<KvBlockId> fork(Sequence& sequence, const Sequence& leader);
  bool extend_table(Sequence& sequence, Draft& draft);
  Sequence* victim_for(const Sequence& sequence, MicrobatchId forming) const;
  void preempt(Sequence& victim);

  // Forming (microbatch_builder.cc).
  void fill(Draft& draft);
  void fill_decodes(Draft& draft);
  void add_decode(SequenceId id, Draft& draft);
  void limit_prefill(Draft& draft);
  void fill_prefill(Draft& draft);
  int64_t frame_bytes_max() const;
  int64_t slice_bytes(const Sequence& sequence, int32_t num_tokens) const;
  int32_t chunk_of(const Sequence& sequence, const Draft& draft) const;
  void add_slice(Sequence& sequence, int32_t num_tokens, Draft& draft);
  void describe(Sequence& sequence, Microbatch& microbatch) const;
  void settle(Draft& draft);
  void mark_canary(Draft& draft);
  void release(Microbatch& microbatch);
  void charge(TenantId tenant, int64_t num_tokens);
  void publish_filled(Sequence& sequence);
  void release_held(RequestRecord& request);

  // What was lost (sequencer_repair.cc).
  /// While some sequence is not whole.
  struct Repair {
    LaneFill fill;
    // By block: who rebuilds it, as long as it runs; and the microbatch that last did some of it.
    std::vector<SequenceId> owners;
    std::vector<MicrobatchId> filled_in;
  };
  void begin_repair(Sequence& sequence);
  void end_repair_if_done();
  void release_strangers(std::span<const StageHoldings> stages);
  void set_repairing(Sequence& sequence, bool repairing);
  void fill_repair(Draft& draft);
  int32_t num_placed(const Sequence& sequence) const;
  std::optional<LaneFill::Stretch> missing(const Sequence& sequence) const;
  bool lacks_still(const Sequence& sequence, int32_t begin, int32_t end) const;
  bool is_whole(const Sequence& sequence) const;
  void go_on(Sequence& sequence);
  void own_from(const Sequence& sequence, int32_t position);
  std::optional<LaneFill::Stretch> next_stretch(Sequence& sequence, const Draft& draft);
  void note_filled(const Sequence& sequence, int32_t begin, int32_t end, const Draft& draft);

  // What stages hold of an earlier sequencer's (sequencer_adopt.cc).
  /// A sequence that nobody has asked for again yet. Its slot and its blocks are reserved.
  struct Orphan {
    SequenceId id;
    std::vector<KvBlockId> table;
  };
  using OrphanKey = std::pair<uint64_t, uint32_t>;  // request's identity, index of the choice
  bool is_orphan(SequenceId id) const;
  bool adopt(Sequence& sequence);
  void let_go(const Orphan& orphan);
  void let_orphans_go();

  size_t block_index(KvBlockId block) const {
    return static_cast<size_t>(block.value - options_.first_kv_block);
  }
  static size_t insert_by_rank(std::vector<Sequence*>& list, Sequence& sequence);
  void take_off_lists(const Sequence& sequence);

  int32_t blocks_for(int64_t num_tokens) const {
    return static_cast<int32_t>((num_tokens + options_.block_tokens - 1) / options_.block_tokens);
  }
  int32_t num_running() const { return static_cast<int32_t>(running_.size()); }
  static bool ranks_higher(const Sequence& a, const Sequence& b);

  SequencerOptions options_;
  size_t smallest_stage_ = 0;
  KvCache cache_;
  FairQueue queue_;
  StepCost cost_;
  SequenceStore store_;
  std::set<std::pair<TimePoint, RequestId>> deadlines_;

  std::vector<Sequence*> running_;    // in no order
  std::vector<Sequence*> prefill_;    // of those running: with known tokens to send; by rank
  std::vector<Sequence*> repairing_;  // of those running: with positions that only some stages lack
  std::optional<Repair> repair_;      // while there are any such
  bool repaired_last_ = false;        // the last microbatch was for some stages only
  std::map<OrphanKey, Orphan> orphans_;
  TimePoint orphans_until_;          // while there are any
  std::deque<SequenceId> ready_;     // first come, first served; some may have gone meanwhile
  std::vector<SequenceId> starved_;  // ready, but found no block
  std::vector<SequenceId> releasing_;
  std::deque<InFlight> in_flight_;
  std::vector<std::vector<SequenceId>> spare_members_;
  std::vector<std::pair<TenantId, int64_t>> charges_;  // of the microbatch being formed

  uint64_t last_age_ = 0;
  uint64_t last_microbatch_ = 0;
  int32_t num_decoding_ = 0;
  int32_t num_decodes_in_flight_ = 0;    // all num_decodes
  int32_t num_decode_microbatches_ = 0;  // in flight, with any
  int32_t num_waiting_ = 0;
  int32_t num_preempted_ = 0;
  int32_t num_repairing_ = 0;
  StepWork waiting_;  // the whole prefill of those in the queue
  StepWork burst_;    // the most prefill that waited since there was none
  // The head of the queue that found no room, and how many blocks it lacks one of.
  SequenceId refused_;
  int32_t refused_blocks_ = 0;
  bool short_of_blocks_ = false;  // what the queue waits for: blocks, else places or time
  StageIndex slowest_stage_;
  SequenceId canary_;  // the last one that was sent
  std::optional<TimePoint> last_end_;
  double end_interval_s_ = 0;  // between two ends while others wait; 0: not known yet
  SequencerStats counters_;
};

}  // namespace chainpump::graph
