// What the sequencer knows of each request and of each of its sequences, found in O(1) by id: a
// sequence's slot stands in the low bits of its id, and the bits above are never reused, so an id
// from before a cancel or a preemption finds nothing.
//
//   sequence id   8 bits lane | 36 bits counter, from 1 | 20 bits slot
//
// Pure; one thread. No rules here: those are the sequencer's.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "graph/kv_cache.h"
#include "graph/request.h"
#include "graph/token_log.h"

namespace chainpump::graph {

struct RequestRecord;

/// One choice of a request. Which tokens it knows outlives a preemption; what the stages hold of it
/// does not. Laid out for thousands that decode: what a microbatch and its result look at stands in
/// the first two cache lines.
struct alignas(64) Sequence {
  enum class State : uint8_t {
    held,     // waits for its request's leader, to share its blocks
    queued,   // waits in the fair queue
    running,  // has KV blocks
    drained,  // preempted; results of it are still in flight
  };
  SequenceId id;
  RequestRecord* request = nullptr;
  MicrobatchId last_microbatch;  // that it is in
  RequestId request_id;
  TenantId tenant;
  uint32_t index = 0;           // of the choice
  int32_t num_needed = 0;       // positions that must pass through the stages, from `tokens`
  int32_t num_sent = 0;         // positions; while running
  int32_t num_in_flight = 0;    // microbatches
  int32_t num_blocks_told = 0;  // of the table, that the stages know
  State state = State::held;
  bool scoring = false;
  bool preempted = false;
  bool described = false;
  bool decoding = false;   // its known tokens were all sent once
  bool repairing = false;  // since some of it was lost, not every stage was told of it

  TokenLog tokens;  // prompt, then generated

  std::vector<KvBlockId> table;     // for all known tokens from the start, then as it grows
  std::vector<ContentId> contents;  // of published blocks, from the first
  uint64_t age = 0;                 // order of submission
  size_t running_at = 0;            // its place among the running
  int32_t next_score = 0;           // the first position whose score has not been delivered
  int32_t num_pending() const { return num_needed - num_sent; }
};

/// A request with some choice that has not ended.
struct RequestRecord {
  Request what;  // its prompt and generated tokens were moved into the sequences
  int32_t num_prompt = 0;
  int32_t num_blocks_max = 0;        // that one of its sequences can come to need
  int64_t descriptor_bytes = 0;      // of its parameters, encoded
  std::vector<Sequence*> sequences;  // that have not ended, by choice
  SequenceId leader;                 // the choice that computes the prompt for all
  bool prompt_sent = false;  // by the leader, all but its last position: nobody is held any more
  bool scoring() const { return what.score.first_position >= 0; }
};

class SequenceStore {
 public:
  static uint8_t lane_of(SequenceId id);

  explicit SequenceStore(uint8_t lane) : lane_(lane) {}

  /// A sequence in a slot of its own. Stays where it is until removed.
  Sequence& add();
  void remove(Sequence& sequence);
  /// A new incarnation: what was sent under the id so far finds it no more.
  void renew_id(Sequence& sequence);
  /// Null if there is none (any more) by this id, whoever made the id up.
  Sequence* find(SequenceId id) {
    const size_t slot = slot_of(id);
    if (slot >= slots_.size()) return nullptr;
    Sequence* sequence = slots_[slot].get();
    return sequence->id == id && id.value != 0 ? sequence : nullptr;
  }

  /// An id of a store that is no more, of this lane and with a slot below `max_slots`: nobody gets
  /// its slot. False if it cannot be.
  bool reserve(SequenceId id, size_t max_slots);
  /// Gives a reserved id to a sequence, which stays where it is; or to nobody.
  void take_over(Sequence& sequence, SequenceId id);
  void unreserve(SequenceId id) { free_slots_.push_back(slot_of(id)); }

  /// Ids made from now on are greater than this one of the lane, whoever made it.
  void skip(SequenceId id);

  /// Has the memory fetched what the next microbatch or result of a sequence will look at:
  /// thousands do not fit into the nearer caches. First the sequence itself, a while later its last
  /// token.
  void prefetch(SequenceId id) const {
    const size_t slot = slot_of(id);
    if (slot >= slots_.size()) return;
    const auto* lines = reinterpret_cast<const char*>(slots_[slot].get());
    __builtin_prefetch(lines);
    __builtin_prefetch(lines + 64);
  }
  /// How far ahead of its use to do so.
  static constexpr size_t kAhead = 8;

  RequestRecord& add_request(RequestId id) { return requests_[id]; }
  RequestRecord* find_request(RequestId id) {
    const auto found = requests_.find(id);
    return found == requests_.end() ? nullptr : &found->second;
  }
  void remove_request(RequestId id) { requests_.erase(id); }
  std::vector<Sequence*> in_state(Sequence::State state) const;
  size_t num_requests() const { return requests_.size(); }

  static constexpr size_t kMaxSlots = size_t{1} << 20;

 private:
  static size_t slot_of(SequenceId id) { return id.value & (kMaxSlots - 1); }
  SequenceId next_id(size_t slot);

  uint8_t lane_;
  uint64_t last_ = 0;
  std::vector<std::unique_ptr<Sequence>> slots_;
  std::vector<size_t> free_slots_;
  std::unordered_map<RequestId, RequestRecord> requests_;  // by node: records stay in place
};

}  // namespace chainpump::graph
