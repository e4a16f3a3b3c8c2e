#include "models/sequence_table.h"

#include <algorithm>

#include "base/check.h"
#include "base/kv_layout.h"

namespace chainpump::models {
namespace {

bool names(const std::vector<SequenceId>& list, SequenceId id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}

bool describes(const graph::Microbatch& microbatch, SequenceId id) {
  return std::any_of(microbatch.descriptors.begin(), microbatch.descriptors.end(),
                     [&](const graph::SequenceDescriptor& d) { return d.id == id; });
}

int64_t blocks_for(int64_t tokens) { return (tokens + kKvBlockTokens - 1) / kKvBlockTokens; }

bool has_duplicates(std::vector<SequenceId>& ids) {
  std::sort(ids.begin(), ids.end());
  return std::adjacent_find(ids.begin(), ids.end()) != ids.end();
}

}  // namespace

SequenceTable::SequenceTable(const graph::MicrobatchLimits& limits)
    : limits_(limits),
      owner_(static_cast<size_t>(limits.num_kv_blocks)),
      given_in_(static_cast<size_t>(limits.num_kv_blocks), 0) {
  sequences_.reserve(static_cast<size_t>(limits.max_sequences));
}

const SequenceTable::Sequence* SequenceTable::find_kept(const graph::Microbatch& microbatch,
                                                        SequenceId id) const {
  const auto it = sequences_.find(id);
  if (it == sequences_.end() || names(microbatch.released, id)) return nullptr;
  return &it->second;
}

Status SequenceTable::check_counts(const graph::Microbatch& microbatch) {
  if (microbatch.num_tokens() > limits_.max_tokens) {
    return make_error(ErrorCode::invalid_argument, "microbatch {}: {} tokens, at most {} fit",
                      microbatch.id, microbatch.num_tokens(), limits_.max_tokens);
  }
  scratch_ids_.clear();
  for (const graph::SequenceDescriptor& d : microbatch.descriptors) scratch_ids_.push_back(d.id);
  if (has_duplicates(scratch_ids_)) {
    return make_error(ErrorCode::invalid_argument, "microbatch {}: two descriptors of one sequence",
                      microbatch.id);
  }
  // Sequences that would be held: those kept, and those that the descriptors add.
  size_t num_held = sequences_.size();
  for (const SequenceId id : scratch_ids_) num_held += sequences_.contains(id) ? 0 : 1;
  scratch_ids_ = microbatch.released;
  std::sort(scratch_ids_.begin(), scratch_ids_.end());
  scratch_ids_.erase(std::unique(scratch_ids_.begin(), scratch_ids_.end()), scratch_ids_.end());
  for (const SequenceId id : scratch_ids_) {
    if (sequences_.contains(id) && !describes(microbatch, id)) --num_held;
  }
  if (num_held > static_cast<size_t>(limits_.max_sequences)) {
    return make_error(ErrorCode::invalid_argument, "microbatch {}: {} sequences, at most {} fit",
                      microbatch.id, num_held, limits_.max_sequences);
  }
  scratch_ids_.clear();
  for (const graph::SequenceSlice& slice : microbatch.slices) scratch_ids_.push_back(slice.id);
  if (has_duplicates(scratch_ids_)) {
    return make_error(ErrorCode::invalid_argument, "microbatch {}: two slices of one sequence",
                      microbatch.id);
  }
  return ok_status();
}

Status SequenceTable::check_slice(const graph::Microbatch& microbatch,
                                  const graph::SequenceSlice& slice) {
  const Sequence* held = find_kept(microbatch, slice.id);
  if (held == nullptr && !describes(microbatch, slice.id)) {
    return make_error(ErrorCode::invalid_argument, "sequence {} is unknown and has no descriptor",
                      slice.id);
  }
  const auto num_new = static_cast<int64_t>(slice.tokens.size());
  const int32_t num_tokens = held != nullptr ? held->num_tokens : 0;
  if (num_new == 0) {
    return make_error(ErrorCode::invalid_argument, "sequence {}: a slice without tokens", slice.id);
  }
  if (slice.first_position != num_tokens) {
    return make_error(ErrorCode::invalid_argument,
                      "sequence {}: positions from {} on, but {} are held", slice.id,
                      slice.first_position, num_tokens);
  }
  const int64_t end = num_tokens + num_new;
  if (end > limits_.context_tokens) {
    return make_error(ErrorCode::invalid_argument,
                      "sequence {}: position {} is past the context {}", slice.id, end - 1,
                      limits_.context_tokens);
  }
  for (const TokenId token : slice.tokens) {
    if (token < 0 || token >= limits_.vocabulary_size) {
      return make_error(ErrorCode::invalid_argument, "sequence {}: token {} is not in [0, {})",
                        slice.id, token, limits_.vocabulary_size);
    }
  }
  const size_t num_held = held != nullptr ? held->blocks.size() : 0;
  if (slice.table_offset < 0 || static_cast<size_t>(slice.table_offset) != num_held) {
    return make_error(ErrorCode::invalid_argument, "sequence {}: table offset {}, but {} held",
                      slice.id, slice.table_offset, num_held);
  }
  const auto num_blocks = static_cast<int64_t>(num_held + slice.new_blocks.size());
  if (num_blocks < blocks_for(end) || num_blocks > blocks_for(limits_.context_tokens)) {
    return make_error(ErrorCode::invalid_argument, "sequence {}: {} blocks for {} positions",
                      slice.id, num_blocks, end);
  }
  return check_blocks(microbatch, slice);
}

Status SequenceTable::check_blocks(const graph::Microbatch& microbatch,
                                   const graph::SequenceSlice& slice) {
  for (const KvBlockId block : slice.new_blocks) {
    if (block.value < 0 || block.value >= limits_.num_kv_blocks) {
      return make_error(ErrorCode::invalid_argument, "sequence {}: block {} is not in [0, {})",
                        slice.id, block, limits_.num_kv_blocks);
    }
    const auto at = static_cast<size_t>(block.value);
    if (given_in_[at] == check_number_) {
      return make_error(ErrorCode::invalid_argument, "sequence {}: block {} is given twice",
                        slice.id, block);
    }
    given_in_[at] = check_number_;
    const SequenceId owner = owner_[at];
    if (owner != SequenceId() && !names(microbatch.released, owner)) {
      return make_error(ErrorCode::invalid_argument, "sequence {}: block {} belongs to sequence {}",
                        slice.id, block, owner);
    }
  }
  return ok_status();
}

Status SequenceTable::check(const graph::Microbatch& microbatch) {
  ++check_number_;
  RETURN_IF_ERROR(check_counts(microbatch));
  for (const graph::SequenceDescriptor& d : microbatch.descriptors) {
    if (d.id == SequenceId()) {
      return make_error(ErrorCode::invalid_argument, "sequence ids begin at 1");
    }
  }
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    RETURN_IF_ERROR(check_slice(microbatch, slice));
  }
  return ok_status();
}

void SequenceTable::release(SequenceId id) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end()) return;
  for (const KvBlockId block : it->second.blocks) {
    owner_[static_cast<size_t>(block.value)] = SequenceId();
  }
  num_blocks_held_ -= static_cast<int32_t>(it->second.blocks.size());
  sequences_.erase(it);
}

void SequenceTable::apply(const graph::Microbatch& microbatch) {
  for (const SequenceId id : microbatch.released) release(id);
  for (const graph::SequenceDescriptor& d : microbatch.descriptors) {
    Sequence& sequence = sequences_[d.id];  // a known one keeps its blocks: only its link is new
    // All that it can ever need at once, so that decoding does not allocate.
    sequence.blocks.reserve(static_cast<size_t>(blocks_for(limits_.context_tokens)));
  }
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    Sequence& sequence = sequences_.at(slice.id);
    for (const KvBlockId block : slice.new_blocks) {
      owner_[static_cast<size_t>(block.value)] = slice.id;
      sequence.blocks.push_back(block);
      ++num_blocks_held_;
    }
    sequence.num_tokens += static_cast<int32_t>(slice.tokens.size());
  }
}

std::span<const KvBlockId> SequenceTable::block_table(SequenceId id) const {
  const auto it = sequences_.find(id);
  CHECK(it != sequences_.end());
  return it->second.blocks;
}

int32_t SequenceTable::num_tokens(SequenceId id) const {
  const auto it = sequences_.find(id);
  return it == sequences_.end() ? 0 : it->second.num_tokens;
}

}  // namespace chainpump::models
