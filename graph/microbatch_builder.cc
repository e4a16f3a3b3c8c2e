// Forming a microbatch: who decodes, how much prefill goes with them, and what the stages are told.
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "graph/sequencer_draft.h"

namespace chainpump::graph {
namespace {

// Of the chain, that a burst of prefill is spread over while others decode. Fewer leave stages
// idle, more keep new requests waiting. In virtual time 4 gives up to 7 % more tokens per second
// than 1 and a quarter off the longest gaps between tokens, for first tokens that come a fifth
// later.
constexpr double kPrefillRounds = 4;

}  // namespace

std::optional<Microbatch> Sequencer::next() {
  if (num_in_flight() >= options_.max_microbatches) return std::nullopt;
  Draft draft;
  draft.microbatch.id = MicrobatchId(last_microbatch_ + 1);
  draft.tokens_left = options_.max_microbatch_tokens;
  if (options_.max_metadata_bytes > 0)
    draft.metadata_left = options_.max_metadata_bytes - frame_bytes_max();
  const bool releases_only = releasing_.size() > static_cast<size_t>(options_.max_sequences);
  if (!releases_only) fill(draft);
  if (draft.microbatch.slices.empty()) {
    CHECK(draft.microbatch.copies.empty());
    if (releasing_.empty()) return std::nullopt;
  }
  settle(draft);
  return std::move(draft.microbatch);
}

/// Those who lack what only some stages lost take turns with all others, if there are any; some
/// come to be known only as they come in.
void Sequencer::fill(Draft& draft) {
  const bool others_first = std::exchange(repaired_last_, false);
  if (!others_first) fill_repair(draft);
  repaired_last_ = !draft.microbatch.slices.empty();
  if (repaired_last_) return;
  fill_decodes(draft);
  fill_prefill(draft);
  const bool adopted = std::exchange(draft.adopted, false);
  if ((others_first || adopted) && draft.microbatch.slices.empty()) fill(draft);
}

/// The sequences that decode are spread evenly over the microbatches that fill the chain: each
/// takes its share of those that no other has, 9 over 4 stages as 3, 2, 2 and 2. Those that found
/// no block before come first, the highest of them at the very first, when nobody is in the
/// microbatch yet and anybody who ranks lower can be preempted for it.
void Sequencer::fill_decodes(Draft& draft) {
  if (num_decoding_ == 0) return;
  const int32_t spread =
      std::min(static_cast<int32_t>(options_.stages.size()), options_.max_microbatches);
  // One more than fills the chain would be smaller ones from then on, each of which costs the
  // stages its overhead: what comes back next joins those who wait now.
  if (num_decode_microbatches_ >= spread) return;
  const auto evenly = [](int32_t count, int32_t over) { return (count + over - 1) / over; };
  const int32_t num_left = std::max(1, num_decoding_ - num_decodes_in_flight_);
  const int32_t others = spread - num_decode_microbatches_;
  int32_t share = std::min(evenly(num_decoding_, spread), evenly(num_left, others));
  const bool prefill_waits = !prefill_.empty() || queue_.size() > 0;
  share = std::min(share, std::max(1, draft.tokens_left - (prefill_waits ? 1 : 0)));
  draft.decodes_left = share;
  draft.microbatch.slices.reserve(static_cast<size_t>(share) + 1);
  if (!starved_.empty()) {
    std::vector<SequenceId> starved = std::exchange(starved_, {});
    const auto gone = [&](SequenceId id) { return store_.find(id) == nullptr; };
    starved.erase(std::remove_if(starved.begin(), starved.end(), gone), starved.end());
    std::sort(starved.begin(), starved.end(), [&](SequenceId a, SequenceId b) {
      return ranks_higher(*store_.find(a), *store_.find(b));
    });
    for (const SequenceId id : starved) add_decode(id, draft);
  }
  while (draft.decodes_left > 0 && !ready_.empty()) {
    const SequenceId id = ready_.front();
    if (ready_.size() > SequenceStore::kAhead) store_.prefetch(ready_[SequenceStore::kAhead]);
    ready_.pop_front();
    add_decode(id, draft);
  }
}

void Sequencer::add_decode(SequenceId id, Draft& draft) {
  Sequence* sequence = store_.find(id);
  if (sequence == nullptr || sequence->state != Sequence::State::running) return;
  if (draft.decodes_left == 0 || !extend_table(*sequence, draft)) {
    starved_.push_back(id);
    return;
  }
  --draft.decodes_left;
  ++draft.num_decodes;
  add_slice(*sequence, 1, draft);
}

/// How much prefill may go in. The largest amount of work since there was none sets the time of all
/// its steps, so that they are equal. While others decode, the overhead of a microbatch is paid in
/// any case: then the work is spread over several rounds of the chain, for a step that is longer
/// than those before it leaves the stages behind it idle.
void Sequencer::limit_prefill(Draft& draft) {
  draft.prefill_left = draft.tokens_left;
  if (options_.prefill_chunk_tokens > 0) {
    draft.prefill_left = std::min(draft.prefill_left, options_.prefill_chunk_tokens);
    return;
  }
  StepWork work = waiting_;
  for (const Sequence* sequence : prefill_) work.add(sequence->num_pending(), sequence->num_sent);
  if (cost_.predict_s(work) > cost_.predict_s(burst_)) burst_ = work;
  const double overhead_s = cost_.coefficients().overhead_s;
  const double burst_s = cost_.predict_s(burst_) - overhead_s;
  const auto num_stages = static_cast<double>(options_.stages.size());
  if (num_stages > 1)
    draft.step_s = overhead_s + std::sqrt(overhead_s * burst_s / (num_stages - 1));
  if (num_decoding_ == 0) return;
  const double delay_s = to_seconds(options_.decode_delay_max) / options_.max_microbatches;
  const double share_s = std::min(delay_s, burst_s / (kPrefillRounds * num_stages));
  draft.step_s = std::min(draft.step_s, cost_.predict_s(draft.work) + share_s);
}

/// Those that have begun, by rank; then, or before those of lower priority, newcomers.
void Sequencer::fill_prefill(Draft& draft) {
  if (prefill_.empty() && queue_.size() == 0) {
    burst_ = {};
    return;
  }
  limit_prefill(draft);
  bool admitting = true;
  while (draft.prefill_left > 0) {
    // Whoever is in this microbatch and goes on in a later one is passed once.
    while (draft.next_prefill < prefill_.size() &&
           prefill_[draft.next_prefill]->last_microbatch == draft.microbatch.id)
      ++draft.next_prefill;
    Sequence* sequence =
        draft.next_prefill < prefill_.size() ? prefill_[draft.next_prefill] : nullptr;
    if (admitting) {
      const std::optional<FairQueue::Item> head = queue_.front();
      if (head && (sequence == nullptr || head->priority > sequence->request->what.priority)) {
        admitting = admit_next(draft);
        continue;
      }
    }
    if (sequence == nullptr) return;
    const int32_t num_tokens = chunk_of(*sequence, draft);
    if (num_tokens == 0) return;
    draft.has_prefill = true;
    draft.prefill_left -= num_tokens;
    draft.metadata_left -= slice_bytes(*sequence, num_tokens);
    counters_.prompt_tokens_sent += static_cast<uint64_t>(num_tokens);
    add_slice(*sequence, num_tokens, draft);
  }
}

/// More than a frame takes beside the tokens, blocks and descriptors of prefill.
int64_t Sequencer::frame_bytes_max() const {
  const int64_t of_each = kReleaseBytes + kCopyBytes + kSliceBytes + kTokenBytes + kBlockBytes;
  return kFrameBytes + of_each * options_.max_sequences;
}

/// More than a slice of so many tokens takes there, with the sequence's descriptor if it is due.
int64_t Sequencer::slice_bytes(const Sequence& sequence, int32_t num_tokens) const {
  const int64_t num_known = sequence.tokens.size();
  return kTokenBytes * int64_t{num_tokens} + kBlockBytes * int64_t{blocks_for(num_known)} +
         (sequence.described ? 0 : sequence.request->descriptor_bytes + kTokenBytes * num_known);
}

/// How many tokens of it go in now; 0: none any more. The first takes at least one.
int32_t Sequencer::chunk_of(const Sequence& sequence, const Draft& draft) const {
  const int32_t most = std::min(num_placed(sequence) - sequence.num_sent, draft.prefill_left);
  if (slice_bytes(sequence, most) > draft.metadata_left && draft.has_prefill) return 0;
  if (options_.prefill_chunk_tokens > 0) return most;
  const int32_t fitting = cost_.tokens_within(draft.work, sequence.num_sent, draft.step_s, most);
  if (fitting > 1 || !draft.has_prefill) return fitting;
  StepWork with_one = draft.work;
  with_one.add(1, sequence.num_sent);
  return cost_.predict_s(with_one) <= draft.step_s ? fitting : 0;
}

void Sequencer::add_slice(Sequence& sequence, int32_t num_tokens, Draft& draft) {
  if (!sequence.described) describe(sequence, draft.microbatch);
  const int32_t first = sequence.num_sent;
  const int32_t num_blocks = blocks_for(first + num_tokens);
  // What is written must be the sequence's alone, unless it is rebuilt for all. A block that it has
  // begun to fill stays so: others share whole ones.
  if (!repair_ && (!sequence.decoding || first % options_.block_tokens == 0))
    CHECK_EQ(
        cache_.num_references(sequence.table[static_cast<size_t>(first / options_.block_tokens)]),
        1);
  SequenceSlice& slice = draft.microbatch.slices.emplace_back();
  slice.id = sequence.id;
  slice.first_position = first;
  if (sequence.decoding) {
    slice.tokens.push_back(sequence.tokens.back());
  } else {
    const auto begin = sequence.tokens.all().begin() + first;
    slice.tokens.assign(begin, begin + num_tokens);
  }
  slice.table_offset = sequence.num_blocks_told;
  if (num_blocks > sequence.num_blocks_told)
    slice.new_blocks.assign(sequence.table.begin() + sequence.num_blocks_told,
                            sequence.table.begin() + num_blocks);
  sequence.num_blocks_told = num_blocks;
  sequence.num_sent += num_tokens;
  sequence.last_microbatch = draft.microbatch.id;
  ++sequence.num_in_flight;
  slice.sample = !sequence.scoring && sequence.num_pending() == 0;
  if (repair_) note_filled(sequence, first, sequence.num_sent, draft);
  const bool again = repair_ && sequence.repairing && !sequence.decoding &&
                     lacks_still(sequence, first, sequence.num_sent);
  if (!sequence.decoding) {
    draft.prefilled.push_back(&sequence);
    if (sequence.num_sent == num_placed(sequence) && !again) {
      take_off_lists(sequence);
      sequence.decoding = !sequence.scoring;
      if (sequence.decoding) ++num_decoding_;
      if (sequence.num_pending() > 0) ready_.push_back(sequence.id);
    }
  }
  if (options_.prefix_cache &&
      sequence.num_sent / options_.block_tokens > first / options_.block_tokens)
    draft.filled.push_back(&sequence);
  draft.work.add(num_tokens, first);
  draft.tokens_left -= num_tokens;
  if (!sequence.repairing) charge(sequence.tenant, num_tokens);
  set_repairing(sequence, sequence.repairing && draft.microbatch.stages != StageSpan{});
  // Whoever passes it on only, knows nothing of it.
  sequence.described = !sequence.repairing;
  if (sequence.repairing) sequence.num_blocks_told = 0;
  if (again) sequence.num_sent = first;
}

void Sequencer::describe(Sequence& sequence, Microbatch& microbatch) const {
  const RequestRecord& request = *sequence.request;
  SequenceDescriptor& descriptor = microbatch.descriptors.emplace_back();
  descriptor.id = sequence.id;
  descriptor.identity = request.what.identity;
  descriptor.sequence_index = sequence.index;
  descriptor.sampling = request.what.sampling;
  descriptor.score = request.what.score;
  const std::vector<TokenId>& known = sequence.tokens.all();
  descriptor.prompt.assign(known.begin(), known.begin() + request.num_prompt);
  descriptor.generated.assign(known.begin() + request.num_prompt, known.end());
  sequence.described = true;
}

/// The queue is told once for all of a tenant, as long as there are few.
void Sequencer::charge(TenantId tenant, int64_t num_tokens) {
  constexpr size_t kFew = 16;
  for (size_t i = charges_.size() - std::min(charges_.size(), kFew); i < charges_.size(); ++i) {
    if (charges_[i].first != tenant) continue;
    charges_[i].second += num_tokens;
    return;
  }
  charges_.emplace_back(tenant, num_tokens);
}

/// The microbatch is as it will be sent: what it fills may be shared by later ones.
void Sequencer::settle(Draft& draft) {
  last_microbatch_ = draft.microbatch.id.value;
  release(draft.microbatch);
  draft.microbatch.keep_log = repair_.has_value();
  end_repair_if_done();
  mark_canary(draft);
  // They say nothing of what a step costs.
  if (repaired_last_ || draft.microbatch.canary) draft.work = {};
  const bool crosses = draft.microbatch.stages == StageSpan{} && !draft.microbatch.slices.empty();
  InFlight in_flight{draft.microbatch.id, draft.work, {}, draft.num_decodes, crosses};
  num_decodes_in_flight_ += draft.num_decodes;
  if (draft.num_decodes > 0) ++num_decode_microbatches_;
  if (!spare_members_.empty()) {
    in_flight.members = std::move(spare_members_.back());
    spare_members_.pop_back();
  }
  in_flight.members.reserve(draft.microbatch.slices.size());
  for (const SequenceSlice& slice : draft.microbatch.slices) in_flight.members.push_back(slice.id);
  for (Sequence* sequence : draft.filled) publish_filled(*sequence);
  for (Sequence* sequence : draft.prefilled) {
    RequestRecord& request = *sequence->request;
    if (!request.prompt_sent && sequence->num_sent >= request.num_prompt - 1) release_held(request);
  }
  in_flight_.push_back(std::move(in_flight));
  for (const auto& [tenant, num_tokens] : charges_) queue_.charge(tenant, num_tokens);
  charges_.clear();
}

/// With nothing but a canary, or only to have one forgotten. It is sent when nothing else runs.
void Sequencer::mark_canary(Draft& draft) {
  Microbatch& microbatch = draft.microbatch;
  if (microbatch.slices.size() > 1) return;
  for (const SequenceSlice& slice : microbatch.slices)
    if (store_.find(slice.id)->request->what.canary) canary_ = slice.id;
  const auto is_canary = [this](const SequenceSlice& slice) { return slice.id == canary_; };
  const auto was_canary = [this](SequenceId id) { return id == canary_; };
  microbatch.canary =
      std::all_of(microbatch.slices.begin(), microbatch.slices.end(), is_canary) &&
      std::all_of(microbatch.released.begin(), microbatch.released.end(), was_canary);
}

/// No more than a stage holds; more are there to be forgotten only after a repair.
void Sequencer::release(Microbatch& microbatch) {
  microbatch.released = std::exchange(releasing_, {});
  const auto most = static_cast<size_t>(options_.max_sequences);
  if (microbatch.released.size() <= most) return;
  releasing_.assign(microbatch.released.begin() + static_cast<ptrdiff_t>(most),
                    microbatch.released.end());
  microbatch.released.resize(most);
}

void Sequencer::publish_filled(Sequence& sequence) {
  const auto block_tokens = static_cast<size_t>(options_.block_tokens);
  const size_t num_filled = static_cast<size_t>(sequence.num_sent) / block_tokens;
  while (sequence.contents.size() < num_filled) {
    const size_t i = sequence.contents.size();
    const ContentId before = i == 0 ? ContentId{} : sequence.contents.back();
    const std::span<const TokenId> tokens =
        std::span(sequence.tokens.all()).subspan(i * block_tokens, block_tokens);
    sequence.contents.push_back(
        cache_.publish(sequence.request->what.cache_salt, before, tokens, sequence.table[i]));
  }
}

/// The leader has sent what its siblings share. They go before others of their tenant: the prompt
/// has been paid for.
void Sequencer::release_held(RequestRecord& request) {
  request.prompt_sent = true;
  for (auto it = request.sequences.rbegin(); it != request.sequences.rend(); ++it)
    if ((*it)->state == Sequence::State::held) enqueue(**it, true);
}

}  // namespace chainpump::graph
