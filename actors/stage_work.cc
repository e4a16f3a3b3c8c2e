#include "actors/stage_work.h"

#include <algorithm>

#include "base/check.h"
#include "base/kv_layout.h"
#include "graph/sequence_store.h"

namespace chainpump::actors {
StageWork::StageWork(const StageWorkOptions& options, models::StageExecutor& executor)
    : options_(options),
      executor_(executor),
      log_({.num_blocks = executor.limits().num_kv_blocks,
            .block_tokens = kKvBlockTokens,
            .row_floats = executor.hidden_size(),
            .max_bytes = options.is_last ? 0 : options.replay_log_bytes}) {}

int64_t StageWork::rows_floats(const graph::Microbatch& microbatch) const {
  return int64_t{microbatch.num_tokens()} * executor_.hidden_size();
}

Result<int64_t> StageWork::run(const graph::Microbatch& microbatch, std::span<const float> input,
                               std::span<float> room, graph::StepResult& result) {
  const bool computes = microbatch.stages.contains(options_.stage);
  const int64_t num_floats = rows_floats(microbatch);
  const int64_t expected = computes && !options_.is_first ? num_floats : 0;
  if (static_cast<int64_t>(input.size()) != expected)
    return make_error(ErrorCode::internal, "a frame of {} tokens carried {} floats, not {}",
                      microbatch.num_tokens(), input.size(), expected);
  CHECK(options_.is_last || num_floats <= static_cast<int64_t>(room.size()));
  for (const graph::BlockCopy& copy : microbatch.copies)
    log_.copy(copy.from, copy.to, microbatch.keep_log);
  note_known(microbatch);
  if (!computes) return pass(microbatch, room, result);
  const std::span<float> output =
      room.first(options_.is_last ? 0 : static_cast<size_t>(num_floats));
  RETURN_IF_ERROR(executor_.run(microbatch, input, output, result));
  if (options_.fault != nullptr) {
    options_.fault->pass(transport::FaultPoint::after_kv_write);
    if (microbatch.keep_log) options_.fault->pass(transport::FaultPoint::filling);
  }
  count_again(microbatch);
  if (!options_.is_last) log(microbatch, output);
  const bool goes_out = microbatch.stages.contains(StageIndex(options_.stage.value + 1));
  return goes_out && !options_.is_last ? num_floats : 0;
}

/// Nothing of it is this stage's but what it forgets and copies.
Result<int64_t> StageWork::pass(const graph::Microbatch& microbatch, std::span<float> room,
                                graph::StepResult& result) {
  graph::Microbatch stripped;
  stripped.id = microbatch.id;
  stripped.released = microbatch.released;
  stripped.copies = microbatch.copies;
  RETURN_IF_ERROR(executor_.run(stripped, {}, {}, result));
  if (options_.stage.value + 1 != microbatch.stages.first || options_.is_last) return int64_t{0};
  RETURN_IF_ERROR(repeat(microbatch, room));
  return rows_floats(microbatch);
}

Status StageWork::repeat(const graph::Microbatch& microbatch, std::span<float> room) const {
  auto to = room.begin();
  for (const graph::SequenceSlice& slice : microbatch.slices)
    for (size_t i = 0; i < slice.tokens.size(); ++i) {
      const size_t position = static_cast<size_t>(slice.first_position) + i;
      const size_t index = position / kKvBlockTokens;
      const auto offset = static_cast<int32_t>(position % kKvBlockTokens);
      const bool named = slice.table_offset == 0 && index < slice.new_blocks.size();
      if (!named || log_.num_positions(slice.new_blocks[index]) <= offset)
        return make_error(
            ErrorCode::internal,
            "microbatch {}: asks for position {} of sequence {}, which was not logged",
            microbatch.id, position, slice.id);
      const std::span<const float> row = log_.row(slice.new_blocks[index], offset);
      to = std::copy(row.begin(), row.end(), to);
    }
  return ok_status();
}

void StageWork::log(const graph::Microbatch& microbatch, std::span<const float> rows) {
  if (options_.replay_log_bytes == 0) return;
  const models::SequenceTable& held = executor_.sequences();
  const auto row_floats = static_cast<size_t>(executor_.hidden_size());
  size_t row = 0;
  for (size_t s = 0; s < microbatch.slices.size(); ++s) {
    const graph::SequenceSlice& slice = microbatch.slices[s];
    const std::span<const KvBlockId> table = held.block_table(slice.id);
    const int32_t write_from = held.write_from()[s];
    for (size_t i = 0; i < slice.tokens.size(); ++i, ++row) {
      const int32_t position = slice.first_position + static_cast<int32_t>(i);
      const KvBlockId block = table[static_cast<size_t>(position / kKvBlockTokens)];
      log_.add(KvBlockId(block.value - options_.first_kv_block), position % kKvBlockTokens,
               rows.subspan(row * row_floats, row_floats), position >= write_from,
               microbatch.keep_log);
    }
  }
}

void StageWork::note_known(const graph::Microbatch& microbatch) {
  for (const SequenceId id : microbatch.released) known_.erase(id);
  for (const graph::SequenceDescriptor& d : microbatch.descriptors) {
    // The last token of all was never computed.
    const auto known = static_cast<int32_t>(d.prompt.size() + d.generated.size()) - 1;
    if (!d.generated.empty()) known_[d.id] = known;
  }
}

void StageWork::count_again(const graph::Microbatch& microbatch) {
  const bool was_lost = is_successor_ && microbatch.stages != graph::StageSpan{};
  const std::span<const int32_t> write_from = executor_.sequences().write_from();
  for (size_t s = 0; s < microbatch.slices.size(); ++s) {
    const graph::SequenceSlice& slice = microbatch.slices[s];
    const int32_t end = slice.first_position + static_cast<int32_t>(slice.tokens.size());
    again_.held += static_cast<uint64_t>(write_from[s] - slice.first_position);
    int32_t known = was_lost ? end : 0;
    if (const auto found = known_.find(slice.id); found != known_.end()) {
      known = std::max(known, std::min(end, found->second));
      if (end > found->second) known_.erase(found);
    }
    again_.rebuilt += static_cast<uint64_t>(std::max(0, known - write_from[s]));
  }
}

graph::StageHoldings StageWork::holdings() const {
  graph::StageHoldings holdings{.stage = options_.stage, .held = {}, .logged = log_.all()};
  const models::SequenceTable& held = executor_.sequences();
  for (const SequenceId id : held.ids())
    if (graph::SequenceStore::lane_of(id) == options_.lane)
      for (KvBlockId& block : holdings.held.emplace_back(held.held(id)).table)
        block.value -= options_.first_kv_block;
  return holdings;
}

}  // namespace chainpump::actors
