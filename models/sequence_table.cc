#include "models/sequence_table.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/kv_layout.h"

namespace chainpump::models {
namespace {

int64_t blocks_for(int64_t tokens) { return (tokens + kKvBlockTokens - 1) / kKvBlockTokens; }

bool has(const std::vector<SequenceId>& sorted, SequenceId id) {
  return std::binary_search(sorted.begin(), sorted.end(), id);
}

/// Sorts `ids`; false if one stands there twice.
bool sort_distinct(std::vector<SequenceId>& ids) {
  std::sort(ids.begin(), ids.end());
  return std::adjacent_find(ids.begin(), ids.end()) == ids.end();
}

}  // namespace

SequenceTable::SequenceTable(const graph::MicrobatchLimits& limits)
    : limits_(limits),
      blocks_(static_cast<size_t>(limits.num_kv_blocks)),
      drafts_(static_cast<size_t>(limits.num_kv_blocks)),
      drafted_in_(static_cast<size_t>(limits.num_kv_blocks), 0),
      given_in_(static_cast<size_t>(limits.num_kv_blocks), 0) {
  sequences_.reserve(static_cast<size_t>(limits.max_sequences));
}

const SequenceTable::Sequence* SequenceTable::find_kept(SequenceId id) const {
  const auto it = sequences_.find(id);
  return it == sequences_.end() || has(released_, id) ? nullptr : &it->second;
}

SequenceTable::Block& SequenceTable::draft(KvBlockId block) {
  const auto at = static_cast<size_t>(block.value);
  if (drafted_in_[at] != check_number_) {
    drafted_in_[at] = check_number_;
    drafts_[at] = blocks_[at];
    drafted_.push_back(block);
  }
  return drafts_[at];
}

Status SequenceTable::check_counts(const graph::Microbatch& microbatch) {
  const auto refuse = [&](std::string what) {
    return make_error(ErrorCode::invalid_argument, "microbatch {}: {}", microbatch.id, what);
  };
  if (microbatch.num_tokens() > limits_.max_tokens)
    return refuse(
        fmt::format("{} tokens, at most {} fit", microbatch.num_tokens(), limits_.max_tokens));
  released_ = microbatch.released;
  sort_distinct(released_);
  released_.erase(std::unique(released_.begin(), released_.end()), released_.end());
  described_.clear();
  for (const graph::SequenceDescriptor& d : microbatch.descriptors) described_.push_back(d.id);
  if (!sort_distinct(described_)) return refuse("two descriptors of one sequence");
  if (has(described_, SequenceId())) return refuse("sequence ids begin at 1");
  sliced_.clear();
  for (const graph::SequenceSlice& slice : microbatch.slices) sliced_.push_back(slice.id);
  if (!sort_distinct(sliced_)) return refuse("two slices of one sequence");
  // Sequences that would be held: those kept, and those that the descriptors add.
  size_t num_held = sequences_.size();
  for (const SequenceId id : described_) num_held += sequences_.contains(id) ? 0 : 1;
  for (const SequenceId id : released_)
    num_held -= sequences_.contains(id) && !has(described_, id) ? 1 : 0;
  if (num_held > static_cast<size_t>(limits_.max_sequences))
    return refuse(fmt::format("{} sequences, at most {} fit", num_held, limits_.max_sequences));
  return ok_status();
}

Status SequenceTable::check_in_range(KvBlockId block) const {
  if (block.value >= 0 && block.value < limits_.num_kv_blocks) return ok_status();
  return make_error(ErrorCode::invalid_argument, "block {} is not in [0, {})", block,
                    limits_.num_kv_blocks);
}

Status SequenceTable::check_copies(const graph::Microbatch& microbatch) {
  for (const graph::BlockCopy& copy : microbatch.copies) {
    RETURN_IF_ERROR(check_in_range(copy.from));
    RETURN_IF_ERROR(check_in_range(copy.to));
    const int32_t num_written = draft(copy.from).num_written;
    if (num_written == 0)
      return make_error(ErrorCode::invalid_argument, "copy of block {}, which holds nothing",
                        copy.from);
    if (copy.from == copy.to)
      return make_error(ErrorCode::invalid_argument, "copy of block {} to itself", copy.to);
    Block& to = draft(copy.to);
    if (to.num_tables != 0)
      return make_error(ErrorCode::invalid_argument, "copy to block {}, which stands in {} tables",
                        copy.to, to.num_tables);
    to.num_written = num_written;
    ++to.times_begun;
  }
  return ok_status();
}

Status SequenceTable::check_slice(const graph::SequenceSlice& slice) {
  const auto refuse = [&](std::string what) {
    return make_error(ErrorCode::invalid_argument, "sequence {}: {}", slice.id, what);
  };
  const Sequence* held = find_kept(slice.id);
  if (held == nullptr && !has(described_, slice.id))
    return make_error(ErrorCode::invalid_argument, "sequence {} is unknown and has no descriptor",
                      slice.id);
  if (slice.tokens.empty()) return refuse("a slice without tokens");
  // Only a sequence's first slice may begin past what is held: at the end of shared blocks.
  const int32_t num_tokens = held != nullptr ? held->num_tokens : 0;
  const bool goes_on = held == nullptr || slice.first_position == held->next_position;
  if (slice.first_position < 0 || (slice.first_position > num_tokens && num_tokens != 0) ||
      (!goes_on && !has(described_, slice.id)))
    return refuse(
        fmt::format("positions from {} on, but {} are held", slice.first_position, num_tokens));
  const int64_t end = slice.first_position + static_cast<int64_t>(slice.tokens.size());
  if (end > limits_.context_tokens)
    return refuse(
        fmt::format("position {} is past the context {}", end - 1, limits_.context_tokens));
  for (const TokenId token : slice.tokens) {
    if (token < 0 || token >= limits_.vocabulary_size)
      return refuse(fmt::format("token {} is not in [0, {})", token, limits_.vocabulary_size));
  }
  const size_t num_held = held != nullptr ? held->blocks.size() : 0;
  if (slice.table_offset < 0 || static_cast<size_t>(slice.table_offset) > num_held)
    return refuse(fmt::format("table offset {}, but {} held", slice.table_offset, num_held));
  const auto num_blocks = slice.table_offset + static_cast<int64_t>(slice.new_blocks.size());
  if (num_blocks < blocks_for(end) || num_blocks > blocks_for(limits_.context_tokens))
    return refuse(fmt::format("{} blocks for {} positions", num_blocks, end));
  return ok_status();
}

/// The slice's table as it will be: what is cut off leaves it, what is new joins it.
Status SequenceTable::draft_table(const graph::SequenceSlice& slice) {
  if (const Sequence* held = find_kept(slice.id)) {
    for (size_t i = static_cast<size_t>(slice.table_offset); i < held->blocks.size(); ++i)
      --draft(held->blocks[i]).num_tables;
  }
  ++slice_number_;
  for (const KvBlockId block : slice.new_blocks) {
    if (const Status in_range = check_in_range(block); !in_range.ok())
      return make_error(ErrorCode::invalid_argument, "sequence {}: {}", slice.id,
                        in_range.error().message);
    uint64_t& given_in = given_in_[static_cast<size_t>(block.value)];
    if (given_in == slice_number_)
      return make_error(ErrorCode::invalid_argument, "sequence {}: block {} is given twice",
                        slice.id, block);
    given_in = slice_number_;
    ++draft(block).num_tables;
  }
  return ok_status();
}

/// What the slice reads and writes, when every table is as it will be. Of the blocks that stay it
/// has read or written all positions before, and nobody else could write into them since. What is
/// held already is read and not written.
Status SequenceTable::draft_writes(const graph::SequenceSlice& slice) {
  const Sequence* held = find_kept(slice.id);
  const auto block_at = [&](int64_t index) {
    return index < slice.table_offset
               ? held->blocks[static_cast<size_t>(index)]
               : slice.new_blocks[static_cast<size_t>(index - slice.table_offset)];
  };
  const int64_t begin = slice.first_position;
  const int64_t end = begin + static_cast<int64_t>(slice.tokens.size());
  const int64_t kept = held != nullptr ? held->num_tokens : 0;
  const int64_t write_from = std::clamp(kept, begin, end);
  for (int64_t i = slice.table_offset; i < blocks_for(write_from); ++i) {
    const KvBlockId block = block_at(i);
    const int64_t num_read = std::min<int64_t>(kKvBlockTokens, write_from - i * kKvBlockTokens);
    if (draft(block).num_written < num_read)
      return make_error(ErrorCode::invalid_argument,
                        "sequence {}: reads {} positions of block {}, which holds {}", slice.id,
                        num_read, block, draft(block).num_written);
  }
  for (int64_t i = write_from / kKvBlockTokens; write_from < end && i < blocks_for(end); ++i) {
    const KvBlockId block = block_at(i);
    Block& written = draft(block);
    if (written.num_tables != 1)
      return make_error(ErrorCode::invalid_argument,
                        "sequence {}: writes into block {}, which stands in {} tables", slice.id,
                        block, written.num_tables);
    if (write_from - i * kKvBlockTokens < written.num_written) ++written.times_begun;
    written.num_written =
        static_cast<int32_t>(std::min<int64_t>(kKvBlockTokens, end - i * kKvBlockTokens));
  }
  return ok_status();
}

Status SequenceTable::check(const graph::Microbatch& microbatch) {
  ++check_number_;
  checked_ = false;
  drafted_.clear();
  RETURN_IF_ERROR(check_counts(microbatch));
  for (const SequenceId id : released_) {
    const auto it = sequences_.find(id);
    if (it == sequences_.end()) continue;
    for (const KvBlockId block : it->second.blocks) --draft(block).num_tables;
  }
  RETURN_IF_ERROR(check_copies(microbatch));
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    RETURN_IF_ERROR(check_slice(slice));
    RETURN_IF_ERROR(draft_table(slice));
  }
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    RETURN_IF_ERROR(draft_writes(slice));
  }
  checked_ = true;
  return ok_status();
}

void SequenceTable::apply(const graph::Microbatch& microbatch) {
  CHECK(std::exchange(checked_, false));
  for (const SequenceId id : released_) sequences_.erase(id);
  for (const KvBlockId block : drafted_) {
    const auto at = static_cast<size_t>(block.value);
    num_blocks_held_ +=
        static_cast<int32_t>(drafts_[at].num_tables > 0) - (blocks_[at].num_tables > 0 ? 1 : 0);
    blocks_[at] = drafts_[at];
  }
  for (const graph::SequenceDescriptor& d : microbatch.descriptors) {
    Sequence& sequence = sequences_[d.id];  // a known one keeps its blocks: only its link is new
    sequence.identity = d.identity;
    sequence.index = d.sequence_index;
    // All that it can ever need at once, so that decoding does not allocate.
    sequence.blocks.reserve(static_cast<size_t>(blocks_for(limits_.context_tokens)));
  }
  write_from_.clear();
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    Sequence& sequence = sequences_.at(slice.id);
    const int32_t end = slice.first_position + static_cast<int32_t>(slice.tokens.size());
    write_from_.push_back(std::clamp(sequence.num_tokens, slice.first_position, end));
    keep_untold(sequence, slice);
    sequence.blocks.resize(static_cast<size_t>(slice.table_offset));
    sequence.blocks.insert(sequence.blocks.end(), slice.new_blocks.begin(), slice.new_blocks.end());
    sequence.num_tokens = std::max(sequence.num_tokens, end);
    sequence.next_position = end;
  }
}

std::span<const KvBlockId> SequenceTable::block_table(SequenceId id) const {
  const auto it = sequences_.find(id);
  CHECK(it != sequences_.end());
  return it->second.blocks;
}

std::vector<SequenceId> SequenceTable::ids() const {
  std::vector<SequenceId> ids;
  for (const auto& [id, sequence] : sequences_) ids.push_back(id);
  return ids;
}

graph::StageHoldings::Held SequenceTable::held(SequenceId id) const {
  const Sequence& sequence = sequences_.at(id);
  std::vector<KvBlockId> table = sequence.blocks;
  table.insert(table.end(), sequence.untold.begin(), sequence.untold.end());
  return held_in(id, std::move(table));
}

graph::StageHoldings::Held SequenceTable::held_as_told(SequenceId id) const {
  return held_in(id, sequences_.at(id).blocks);
}

graph::StageHoldings::Held SequenceTable::held_in(SequenceId id,
                                                  std::vector<KvBlockId> table) const {
  const Sequence& sequence = sequences_.at(id);
  const int64_t covered = std::ssize(table) * int64_t{kKvBlockTokens};
  const auto num_positions = static_cast<int32_t>(std::min<int64_t>(sequence.num_tokens, covered));
  table.resize(static_cast<size_t>(blocks_for(num_positions)));
  return {.id = id,
          .num_positions = num_positions,
          .identity = sequence.identity,
          .index = sequence.index,
          .table = std::move(table)};
}

/// Of one that was described anew the table is told with its slices: where the positions lie that
/// it holds beyond them is known from before.
void SequenceTable::keep_untold(Sequence& sequence, const graph::SequenceSlice& slice) {
  const auto told = static_cast<size_t>(slice.table_offset) + slice.new_blocks.size();
  const auto held = static_cast<size_t>(blocks_for(sequence.num_tokens));
  if (held <= told) return sequence.untold.clear();
  std::vector<KvBlockId> table = sequence.blocks;
  table.insert(table.end(), sequence.untold.begin(), sequence.untold.end());
  table.resize(std::min(table.size(), held));
  sequence.untold.assign(table.begin() + static_cast<ptrdiff_t>(std::min(told, table.size())),
                         table.end());
}

Status SequenceTable::check_held(const graph::StageHoldings::Held& held) {
  const auto refuse = [&](std::string what) {
    return make_error(ErrorCode::invalid_argument, "sequence {} cannot be taken over: {}", held.id,
                      what);
  };
  if (held.id == SequenceId() || sequences_.contains(held.id)) return refuse("its id");
  if (held.num_positions < 0 || held.num_positions > limits_.context_tokens ||
      blocks_for(held.num_positions) != std::ssize(held.table))
    return refuse(fmt::format("{} positions in {} blocks", held.num_positions, held.table.size()));
  ++slice_number_;
  for (const KvBlockId block : held.table) {
    RETURN_IF_ERROR(check_in_range(block));
    if (std::exchange(given_in_[static_cast<size_t>(block.value)], slice_number_) == slice_number_)
      return refuse(fmt::format("block {} twice", block));
  }
  return ok_status();
}

Status SequenceTable::take_over(std::span<const graph::StageHoldings::Held> sequences) {
  if (!sequences_.empty())
    return make_error(ErrorCode::invalid_argument, "it holds {} sequences already",
                      sequences_.size());
  if (sequences.size() > static_cast<size_t>(limits_.max_sequences))
    return make_error(ErrorCode::invalid_argument, "{} sequences, at most {} fit", sequences.size(),
                      limits_.max_sequences);
  std::vector<SequenceId> ids;
  for (const auto& held : sequences) {
    RETURN_IF_ERROR(check_held(held));
    ids.push_back(held.id);
  }
  if (!sort_distinct(ids))
    return make_error(ErrorCode::invalid_argument, "a sequence cannot be taken over twice");
  for (const auto& held : sequences) {
    Sequence& sequence = sequences_[held.id];
    sequence = {.identity = held.identity,
                .index = held.index,
                .blocks = held.table,
                .num_tokens = held.num_positions,
                .next_position = held.num_positions};
    for (size_t i = 0; i < held.table.size(); ++i) {
      Block& block = blocks_[static_cast<size_t>(held.table[i].value)];
      if (block.num_tables++ == 0) ++num_blocks_held_;
      const auto begin = static_cast<int32_t>(i) * kKvBlockTokens;
      block.num_written = std::max(block.num_written,
                                   std::min<int32_t>(kKvBlockTokens, held.num_positions - begin));
    }
  }
  return ok_status();
}

int32_t SequenceTable::num_tokens(SequenceId id) const {
  const auto it = sequences_.find(id);
  return it == sequences_.end() ? 0 : it->second.num_tokens;
}

}  // namespace chainpump::models
