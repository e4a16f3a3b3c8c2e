// What a lane does after some of its stages have lost what they held: see Sequencer::repair() and
// graph/lane_fill.h.
#include <algorithm>

#include "graph/sequencer_draft.h"

namespace chainpump::graph {

void Sequencer::repair(std::span<const StageHoldings> stages) {
  in_flight_.clear();
  num_decodes_in_flight_ = num_decode_microbatches_ = 0;
  ready_.clear();
  starved_.clear();
  prefill_.clear();
  repairing_.clear();
  cache_.clear();
  burst_ = {};
  repaired_last_ = false;
  const auto num_blocks = static_cast<size_t>(cache_.num_blocks());
  repair_.emplace(
      Repair{.fill = LaneFill(static_cast<int32_t>(options_.stages.size()), options_.first_kv_block,
                              cache_.num_blocks(), options_.block_tokens),
             .owners = std::vector<SequenceId>(num_blocks),
             .filled_in = std::vector<MicrobatchId>(num_blocks)});
  release_strangers(stages);
  for (Sequence* sequence : running_) begin_repair(*sequence);
  for (const StageHoldings& stage : stages) {
    for (const StageHoldings::Held& held : stage.held) {
      const Sequence* sequence = store_.find(held.id);
      if (sequence != nullptr && sequence->state == Sequence::State::running)
        repair_->fill.hold(stage.stage, sequence->table, held.num_positions);
      else if (is_orphan(held.id))
        repair_->fill.hold(stage.stage, held.table, held.num_positions);
    }
    for (const StageHoldings::Logged& logged : stage.logged)
      if (block_index(logged.block) < num_blocks)
        repair_->fill.log(stage.stage, logged.block, logged.num_positions);
  }
  // Of several that share a block the highest rebuilds it.
  for (const Sequence* sequence : repairing_)
    for (const KvBlockId block : sequence->table) {
      SequenceId& owner = repair_->owners[block_index(block)];
      if (owner.value == 0) owner = sequence->id;
    }
  end_repair_if_done();
  // Those that were preempted wait for nothing any more; the eldest goes first.
  std::vector<Sequence*> drained = store_.in_state(Sequence::State::drained);
  std::sort(drained.begin(), drained.end(),
            [](const Sequence* a, const Sequence* b) { return a->age > b->age; });
  for (Sequence* sequence : drained) {
    sequence->num_in_flight = 0;
    enqueue(*sequence, true);
  }
}

/// Whom a stage holds and this does not know, or not as running: that it was to be forgotten was
/// lost on the way.
void Sequencer::release_strangers(std::span<const StageHoldings> stages) {
  for (const StageHoldings& stage : stages)
    for (const StageHoldings::Held& held : stage.held) {
      const Sequence* sequence = store_.find(held.id);
      store_.skip(held.id);  // of a sequencer that is no more, perhaps
      const bool runs = sequence != nullptr && sequence->state == Sequence::State::running;
      if (!runs && !is_orphan(held.id)) releasing_.push_back(held.id);
    }
  std::sort(releasing_.begin(), releasing_.end());
  releasing_.erase(std::unique(releasing_.begin(), releasing_.end()), releasing_.end());
}

void Sequencer::end_repair_if_done() {
  if (repairing_.empty() && orphans_.empty()) repair_.reset();
}

void Sequencer::set_repairing(Sequence& sequence, bool repairing) {
  num_repairing_ += static_cast<int32_t>(repairing) - static_cast<int32_t>(sequence.repairing);
  sequence.repairing = repairing;
}

void Sequencer::begin_repair(Sequence& sequence) {
  if (sequence.decoding) --num_decoding_;
  sequence.decoding = sequence.described = false;
  set_repairing(sequence, true);
  sequence.num_in_flight = sequence.num_sent = sequence.num_blocks_told = 0;
  sequence.last_microbatch = {};
  sequence.contents.clear();
  insert_by_rank(repairing_, sequence);
}

/// Of those whose next positions the same stages lack, the highest and its likes. Whoever needs
/// every stage goes on as in any prefill.
void Sequencer::fill_repair(Draft& draft) {
  for (size_t i = 0; i < repairing_.size() && draft.tokens_left > 0;) {
    Sequence& sequence = *repairing_[i];
    if (is_whole(sequence)) {
      go_on(sequence);
      continue;
    }
    const std::optional<LaneFill::Stretch> stretch = next_stretch(sequence, draft);
    const bool other =
        !draft.microbatch.slices.empty() && stretch && stretch->stages != draft.microbatch.stages;
    if (!stretch || other) {
      ++i;
      continue;
    }
    sequence.num_sent = stretch->begin;
    if (stretch->stages == StageSpan{.first = 0, .last = repair_->fill.num_stages() - 1}) {
      repairing_.erase(repairing_.begin() + static_cast<ptrdiff_t>(i));
      insert_by_rank(prefill_, sequence);
      own_from(sequence, stretch->begin);
      continue;
    }
    const int32_t num_tokens = std::min(stretch->end - stretch->begin, draft.tokens_left);
    const int64_t bytes = slice_bytes(sequence, num_tokens);
    if (bytes > draft.metadata_left && !draft.microbatch.slices.empty()) return;
    draft.metadata_left -= bytes;
    draft.microbatch.stages = stretch->stages;
    counters_.positions_rebuilt += static_cast<uint64_t>(num_tokens);
    add_slice(sequence, num_tokens, draft);
    if (i < repairing_.size() && repairing_[i] == &sequence) ++i;
  }
}

/// How many of its positions have blocks: the last one that it knows may have none yet.
int32_t Sequencer::num_placed(const Sequence& sequence) const {
  const auto placed = static_cast<int32_t>(sequence.table.size()) * options_.block_tokens;
  return std::min(sequence.num_needed, placed);
}

std::optional<LaneFill::Stretch> Sequencer::missing(const Sequence& sequence) const {
  const int32_t results_from = sequence.scoring ? sequence.next_score : sequence.num_needed - 1;
  return repair_->fill.next(sequence.table, sequence.num_sent, num_placed(sequence), results_from);
}

/// Of positions that were computed just now: other stages come next.
bool Sequencer::lacks_still(const Sequence& sequence, int32_t begin, int32_t end) const {
  return repair_->fill.next(sequence.table, begin, end, end).has_value();
}

/// All but its last position is there, and that one was never sent.
bool Sequencer::is_whole(const Sequence& sequence) const {
  return num_placed(sequence) < sequence.num_needed && !missing(sequence);
}

/// Decodes as before.
void Sequencer::go_on(Sequence& sequence) {
  CHECK(!sequence.scoring);
  repairing_.erase(std::find(repairing_.begin(), repairing_.end(), &sequence));
  sequence.num_sent = sequence.num_needed - 1;
  sequence.decoding = true;
  ++num_decoding_;
  ready_.push_back(sequence.id);
}

/// What is missing of it next; empty if another rebuilds that for it, or does so in this very
/// microbatch with what goes before.
std::optional<LaneFill::Stretch> Sequencer::next_stretch(Sequence& sequence, const Draft& draft) {
  std::optional<LaneFill::Stretch> stretch = missing(sequence);
  CHECK(stretch.has_value());  // the last one's result is needed in any case
  const int32_t last_block = stretch->begin / options_.block_tokens;
  for (int32_t i = 0; i <= last_block; ++i) {
    const size_t block = block_index(sequence.table[static_cast<size_t>(i)]);
    if (repair_->filled_in[block] == draft.microbatch.id) return std::nullopt;
  }
  for (int32_t i = last_block; i * options_.block_tokens < stretch->end; ++i) {
    SequenceId& owner = repair_->owners[block_index(sequence.table[static_cast<size_t>(i)])];
    if (owner == sequence.id) continue;
    const Sequence* other = store_.find(owner);
    const bool runs = other != nullptr && other->state == Sequence::State::running;
    if (!runs) {
      owner = sequence.id;
      continue;
    }
    if (i == last_block) return std::nullopt;
    stretch->end = i * options_.block_tokens;
    break;
  }
  return stretch;
}

/// It goes on through all of its blocks: who shares some of them waits until they are written.
void Sequencer::own_from(const Sequence& sequence, int32_t position) {
  for (auto i = static_cast<size_t>(position / options_.block_tokens); i < sequence.table.size();
       ++i)
    repair_->owners[block_index(sequence.table[i])] = sequence.id;
}

void Sequencer::note_filled(const Sequence& sequence, int32_t begin, int32_t end,
                            const Draft& draft) {
  repair_->fill.fill(sequence.table, begin, end, draft.microbatch.stages);
  for (int32_t i = begin / options_.block_tokens; i * options_.block_tokens < end; ++i)
    repair_->filled_in[block_index(sequence.table[static_cast<size_t>(i)])] = draft.microbatch.id;
}

}  // namespace chainpump::graph
