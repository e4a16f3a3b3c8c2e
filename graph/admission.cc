// Who runs: refusing when the queue is full, giving a sequence its blocks (shared ones first), and
// taking them back for one that ranks higher.
#include <algorithm>

#include "base/check.h"
#include "graph/sequencer_draft.h"

namespace chainpump::graph {
namespace {

constexpr double kRetryMin_s = 0.01;
constexpr double kRetryMax_s = 60;

}  // namespace

int64_t descriptor_bytes_max(const Request& request) {
  size_t bytes = 192 + request.score.full_path.size();
  bytes += 8 * request.sampling.logit_bias.size() + 4 * request.sampling.stop_token_ids.size();
  for (const std::string& text : request.sampling.stop) bytes += 4 + text.size();
  return static_cast<int64_t>(bytes);
}

/// Whether a sequence of it fits the stages when it is as long as it can become, alone.
Status Sequencer::check_size(const Request& request) const {
  const auto num_prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t num_positions = request.score.first_position >= 0
                                    ? num_prompt - 1
                                    : num_prompt + request.sampling.max_new_tokens - 1;
  const StageRoom& smallest = options_.stages[smallest_stage_];
  if (blocks_for(num_positions) > smallest.num_kv_blocks)
    return make_error(ErrorCode::invalid_argument,
                      "{} tokens need {} KV blocks, but {} has {} (raise kv.budget)", num_positions,
                      blocks_for(num_positions), smallest.name, smallest.num_kv_blocks);
  const int64_t metadata_bytes = frame_bytes_max() + descriptor_bytes_max(request) +
                                 kBlockBytes * blocks_for(num_positions) +
                                 kTokenBytes * (num_positions + 1 + options_.max_microbatch_tokens);
  if (options_.max_metadata_bytes > 0 && metadata_bytes > options_.max_metadata_bytes)
    return make_error(ErrorCode::invalid_argument,
                      "{} tokens and their parameters take {} bytes, a frame carries {}",
                      num_positions, metadata_bytes, options_.max_metadata_bytes);
  return ok_status();
}

Status Sequencer::check_room(const Request& request) const {
  const int32_t most = options_.max_queued + (request.readmitted ? options_.max_sequences : 0);
  if (num_waiting_ + request.num_choices <= most) return ok_status();
  const StageRoom& smallest = options_.stages[smallest_stage_];
  const auto slowest = static_cast<size_t>(slowest_stage_.value);
  const StageRoom& stage =
      short_of_blocks_ || slowest >= options_.stages.size() ? smallest : options_.stages[slowest];
  return make_error(
      ErrorCode::overloaded,
      "{} is full: {} sequences run ({} of {} KV blocks free), {} wait; retry after {:.2f} s",
      stage.name, num_running(), cache_.num_free(), cache_.num_blocks(), num_waiting_,
      to_seconds(retry_after()));
}

/// When those who wait now will have gone in, at the rate at which others leave; before anybody has
/// left, what their prefill will take.
Duration Sequencer::retry_after() const {
  const StepCost::Coefficients& cost = cost_.coefficients();
  const double seconds =
      end_interval_s_ > 0
          ? end_interval_s_ * num_waiting_
          : cost.overhead_s * num_waiting_ + cost.token_s * static_cast<double>(waiting_.tokens);
  return std::chrono::duration_cast<Duration>(
      std::chrono::duration<double>(std::clamp(seconds, kRetryMin_s, kRetryMax_s)));
}

/// Into the queue, with nothing of it in flight. One that was preempted gets a new id: it starts
/// anew on the stages.
void Sequencer::enqueue(Sequence& sequence, bool first) {
  CHECK_EQ(sequence.num_in_flight, 0);
  RequestRecord& request = *sequence.request;
  if (sequence.preempted) {
    const bool leads = request.leader == sequence.id && !request.prompt_sent;
    store_.renew_id(sequence);
    if (leads) request.leader = sequence.id;
  }
  sequence.state = Sequence::State::queued;
  sequence.num_sent = 0;
  waiting_.add(sequence.num_needed, 0);
  const FairQueue::Item item{sequence.id, request.what.tenant, request.what.priority};
  if (first)
    queue_.push_front(item);
  else
    queue_.push_back(item);
}

/// Of the queue. Rounding does not outlast its last.
void Sequencer::count_out(const Sequence& sequence) {
  StepWork work;
  work.add(sequence.num_needed, 0);
  waiting_.tokens -= work.tokens;
  waiting_.attended = waiting_.tokens == 0 ? 0 : waiting_.attended - work.attended;
}

/// Lets the head of the queue run, if there is a place and room for it.
bool Sequencer::admit_next(Draft& draft) {
  const std::optional<FairQueue::Item> head = queue_.front();
  if (!head) return false;
  if (num_running() >= options_.max_sequences) {
    short_of_blocks_ = false;
    return false;
  }
  Sequence& sequence = *store_.find(head->id);
  short_of_blocks_ = !make_room(sequence, draft);
  if (short_of_blocks_) return false;
  queue_.pop_front();
  queue_.add_running(head->tenant);
  count_out(sequence);
  counters_.prompt_tokens_hit += static_cast<uint64_t>(sequence.num_sent);
  --num_waiting_;
  if (sequence.preempted) --num_preempted_;
  sequence.state = Sequence::State::running;
  sequence.last_microbatch = {};
  sequence.running_at = running_.size();
  running_.push_back(&sequence);
  if (sequence.repairing) {  // adopted
    begin_repair(sequence);
    draft.adopted = true;
    return true;
  }
  const size_t place = insert_by_rank(prefill_, sequence);
  draft.next_prefill = std::min(draft.next_prefill, place);
  return true;
}

/// Blocks for all that the sequence knows; one more must be free, if it can come to need it, and
/// one for each that runs: so that it does not have to be preempted at once. The first of all that
/// run always finds room (submit sees to it).
bool Sequencer::make_room(Sequence& sequence, Draft& draft) {
  const int32_t num_free = cache_.num_free();
  if (refused_ == sequence.id && num_free - num_running() < refused_blocks_ && !running_.empty())
    return false;
  if (adopt(sequence)) return true;
  // Stages have places for max_sequences, those of an earlier sequencer among them.
  const auto num_orphans = static_cast<int32_t>(orphans_.size());
  if (num_running() + num_orphans >= options_.max_sequences) let_orphans_go();
  const std::optional<KvBlockId> partial = share_prefix(sequence, draft);
  const auto num_shared = static_cast<int32_t>(sequence.table.size());
  if (lacks_room(sequence, num_shared)) let_orphans_go();
  if (lacks_room(sequence, num_shared)) {
    CHECK(!running_.empty());
    refused_ = sequence.id;
    refused_blocks_ = num_wanted(sequence, num_shared) + num_free - cache_.num_free();
    cache_.release(sequence.table);
    sequence.table.clear();
    sequence.contents.clear();
    sequence.num_sent = 0;
    return false;
  }
  extend_to_known(sequence);
  if (partial)
    draft.microbatch.copies.push_back({*partial, sequence.table[static_cast<size_t>(num_shared)]});
  return true;
}

/// Blocks that it needs to begin with, beside those that it shares.
int32_t Sequencer::num_wanted(const Sequence& sequence, int32_t num_shared) const {
  const int32_t num_blocks = blocks_for(sequence.num_needed);
  const int32_t spare = num_blocks < sequence.request->num_blocks_max ? 1 : 0;
  return num_blocks - num_shared + spare;
}

bool Sequencer::lacks_room(const Sequence& sequence, int32_t num_shared) const {
  return cache_.num_free() < num_wanted(sequence, num_shared) + num_running();
}

/// For all that it knows. There is room.
void Sequencer::extend_to_known(Sequence& sequence) {
  const int32_t num_blocks = blocks_for(sequence.num_needed);
  while (static_cast<int32_t>(sequence.table.size()) < num_blocks)
    sequence.table.push_back(allocate().value());
}

/// What a block held before is not its next owner's.
std::optional<KvBlockId> Sequencer::allocate() {
  const std::optional<KvBlockId> block = cache_.allocate();
  if (block && repair_) repair_->fill.forget(*block);
  return block;
}

/// Begins the table with blocks that hold what the sequence would compute, all but its last known
/// position, or all before what is scored. Returns a block to copy after them, if there is one.
std::optional<KvBlockId> Sequencer::share_prefix(Sequence& sequence, const Draft& draft) {
  const RequestRecord& request = *sequence.request;
  const Sequence* leader = store_.find(request.leader);
  if (may_fork(sequence, leader, draft)) return fork(sequence, *leader);
  const int32_t num_known = sequence.tokens.size();
  const int32_t last = request.scoring() ? request.what.score.first_position : num_known - 1;
  const ContentId content = cache_.match(request.what.cache_salt, sequence.tokens.all(),
                                         last / options_.block_tokens, sequence.table);
  // Only the last is needed: nothing is chained to those before.
  sequence.contents.assign(sequence.table.size(), content);
  sequence.num_sent = static_cast<int32_t>(sequence.table.size()) * options_.block_tokens;
  return std::nullopt;
}

/// A leader that is being repaired may have to compute its prompt again, in this microbatch or
/// later.
bool Sequencer::may_fork(const Sequence& sequence, const Sequence* leader,
                         const Draft& draft) const {
  const RequestRecord& request = *sequence.request;
  if (leader == nullptr || leader == &sequence || leader->state != Sequence::State::running ||
      !request.prompt_sent || sequence.tokens.size() != request.num_prompt)
    return false;
  if (leader->num_sent < request.num_prompt - 1) return false;
  if (leader->last_microbatch != draft.microbatch.id) return true;
  const auto slice = std::find_if(draft.microbatch.slices.begin(), draft.microbatch.slices.end(),
                                  [&](const SequenceSlice& s) { return s.id == leader->id; });
  return slice->first_position >= request.num_prompt - 1;
}

/// Shares the whole blocks of the prompt but its last position. What the leader has sent of the
/// block with that position is to be copied: both go on in it, each in its own way.
std::optional<KvBlockId> Sequencer::fork(Sequence& sequence, const Sequence& leader) {
  const int32_t num_shared = sequence.request->num_prompt - 1;
  CHECK_GE(leader.num_sent, num_shared);
  const auto whole = static_cast<size_t>(num_shared / options_.block_tokens);
  for (size_t i = 0; i < whole; ++i) {
    cache_.share(leader.table[i]);
    sequence.table.push_back(leader.table[i]);
  }
  const size_t num_contents = std::min(whole, leader.contents.size());
  sequence.contents.assign(leader.contents.begin(),
                           leader.contents.begin() + static_cast<ptrdiff_t>(num_contents));
  sequence.num_sent = num_shared;
  if (num_shared % options_.block_tokens == 0) return std::nullopt;
  return leader.table[whole];
}

/// A block for the next position, taken from one that ranks lower if none is free. False if there
/// is nobody to take it from who is not in this microbatch already.
bool Sequencer::extend_table(Sequence& sequence, Draft& draft) {
  if (sequence.num_sent % options_.block_tokens != 0) return true;  // it has begun a block
  if (sequence.num_sent < static_cast<int32_t>(sequence.table.size()) * options_.block_tokens)
    return true;
  while (true) {
    if (const std::optional<KvBlockId> block = allocate()) {
      sequence.table.push_back(*block);
      return true;
    }
    if (!orphans_.empty()) {
      let_orphans_go();
      continue;
    }
    if (draft.starved != nullptr && ranks_higher(*draft.starved, sequence)) return false;
    Sequence* victim = victim_for(sequence, draft.microbatch.id);
    if (victim == nullptr) {
      draft.starved = &sequence;
      return false;
    }
    preempt(*victim);
  }
}

/// The lowest of those that rank lower and are not in the microbatch being formed.
Sequence* Sequencer::victim_for(const Sequence& sequence, MicrobatchId forming) const {
  Sequence* lowest = nullptr;
  for (Sequence* candidate : running_) {
    if (candidate->last_microbatch == forming || !ranks_higher(sequence, *candidate)) continue;
    if (lowest == nullptr || ranks_higher(*lowest, *candidate)) lowest = candidate;
  }
  return lowest;
}

void Sequencer::preempt(Sequence& victim) {
  stop_running(victim);
  ++counters_.preemptions;
  ++num_waiting_;
  ++num_preempted_;
  victim.preempted = true;
  victim.state = Sequence::State::drained;
  if (victim.num_in_flight == 0) enqueue(victim, true);
}

}  // namespace chainpump::graph
