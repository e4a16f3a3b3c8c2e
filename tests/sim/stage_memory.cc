#include "tests/sim/stage_memory.h"

#include <algorithm>

namespace chainpump::sim {
namespace {

float row_of(TokenId token, size_t position) {
  return static_cast<float>(static_cast<size_t>(token) + position * kVocabulary);
}

}  // namespace

graph::MicrobatchLimits limits_of(const Scenario& scenario) {
  graph::MicrobatchLimits limits;
  for (const graph::SequencerOptions& lane : scenario.lanes) {
    limits.max_tokens = std::max(limits.max_tokens, lane.max_microbatch_tokens);
    limits.max_sequences += lane.max_sequences;
    limits.num_kv_blocks += scenario.kv_blocks_per_lane;
  }
  limits.context_tokens = kContext;
  limits.vocabulary_size = kVocabulary;
  return limits;
}

StageMemory::StageMemory(SimWorld& world, const Scenario& scenario, models::SequenceTable& table,
                         std::string name, graph::LaneId lane, int stage)
    : world_(world),
      table_(table),
      name_(std::move(name)),
      lane_(scenario.lanes[lane.value]),
      stage_(stage),
      is_last_(stage + 1 == scenario.num_stages()),
      chain_({.block_tokens = kBlockTokens,
              .first_block = lane_.first_kv_block,
              .num_blocks = lane_.stages[static_cast<size_t>(stage)].num_kv_blocks,
              .max_sequences = lane_.max_sequences,
              .max_tokens = lane_.max_microbatch_tokens,
              .vocabulary_size = kVocabulary}),
      log_({.num_blocks =
                lane_.first_kv_block + lane_.stages[static_cast<size_t>(stage)].num_kv_blocks,
            .block_tokens = kBlockTokens,
            .row_floats = 1,
            .max_bytes = int64_t{scenario.log_blocks} * kBlockTokens * int64_t{sizeof(float)}}) {}

std::optional<graph::StepResult> StageMemory::run(const SimFrame& frame,
                                                  const graph::Microbatch& given) {
  const bool computes = given.stages.contains(StageIndex(stage_));
  graph::Microbatch microbatch = given;
  plant_bug(microbatch);
  if (!computes) {
    check_supply(microbatch);
    microbatch.slices.clear();
    microbatch.descriptors.clear();
  }
  if (const Status fits = table_.check(microbatch); !fits.ok()) {
    world_.fail("{}: microbatch {}: {}", name_, microbatch.id, fits.error().message);
    return std::nullopt;
  }
  table_.apply(microbatch);
  for (const SequenceId id : microbatch.released) held_.erase(id);
  for (const graph::SequenceDescriptor& d : microbatch.descriptors)
    held_[d.id] = static_cast<uint64_t>(d.sampling.top_k);
  Result<graph::StepResult> result = chain_.run(microbatch, computes);
  if (!result.ok()) {
    world_.fail("{}: microbatch {}: {}", name_, microbatch.id, result.error().message);
    return std::nullopt;
  }
  log(microbatch);
  check_forgotten(frame, microbatch);
  return std::move(*result);
}

/// After a repair more may be there to forget than one microbatch names.
void StageMemory::check_forgotten(const SimFrame& frame,
                                  const graph::Microbatch& microbatch) const {
  if (microbatch.released.size() >= static_cast<size_t>(lane_.max_sequences)) return;
  for (const uint64_t request : frame.forgotten)
    if (std::any_of(held_.begin(), held_.end(),
                    [&](const auto& entry) { return entry.second == request; }))
      world_.fail("{}: microbatch {} does not release what was cancelled", name_, microbatch.id);
}

void StageMemory::log(const graph::Microbatch& microbatch) {
  const bool keep = microbatch.keep_log && world_.plant != Plant::log_dropped;
  for (const graph::BlockCopy& copy : microbatch.copies) log_.copy(copy.from, copy.to, keep);
  size_t slice_index = 0;
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    const auto table = table_.block_table(slice.id);
    const auto write_from = static_cast<size_t>(table_.write_from()[slice_index++]);
    for (size_t i = 0; i < slice.tokens.size(); ++i) {
      const size_t p = static_cast<size_t>(slice.first_position) + i;
      const float row = row_of(slice.tokens[i], p);
      log_.add(table[p / kBlockTokens], static_cast<int32_t>(p % kBlockTokens), {&row, 1},
               world_.plant != Plant::log_outlived && p >= write_from, keep);
    }
  }
}

/// The stage before the first that computes has what it sent them.
void StageMemory::check_supply(const graph::Microbatch& microbatch) {
  if (stage_ + 1 != microbatch.stages.first) return;
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    const auto descriptor =
        std::find_if(microbatch.descriptors.begin(), microbatch.descriptors.end(),
                     [&](const graph::SequenceDescriptor& d) { return d.id == slice.id; });
    if (descriptor == microbatch.descriptors.end() || slice.table_offset != 0)
      return world_.fail("{}: microbatch {}: {} is not described anew", name_, microbatch.id,
                         slice.id);
    if (!chain_.holds(slice, descriptor->sampling.seed))
      return world_.fail("{}: microbatch {}: sends again what {} never had here", name_,
                         microbatch.id, slice.id);
    for (size_t i = 0; i < slice.tokens.size(); ++i) {
      const size_t p = static_cast<size_t>(slice.first_position) + i;
      const KvBlockId block = slice.new_blocks[p / kBlockTokens];
      const auto offset = static_cast<int32_t>(p % kBlockTokens);
      if (log_.num_positions(block) <= offset)
        return world_.fail("{}: microbatch {}: position {} of {} was not logged", name_,
                           microbatch.id, p, slice.id);
      if (log_.row(block, offset)[0] != row_of(slice.tokens[i], p))
        return world_.fail("{}: microbatch {}: what was logged for position {} of {} is another's",
                           name_, microbatch.id, p, slice.id);
    }
  }
}

void StageMemory::compare(const SimFrame& frame, LaneRun& run) const {
  if (!frame.settled) return;
  const StageAccount own{chain_.num_blocks_held(), chain_.num_held()};
  const auto [first, is_first] = run.accounts.try_emplace(frame.microbatch, own);
  if (!is_first && first->second != own)
    world_.fail("{}: after microbatch {} it holds {} blocks of {} sequences, stage 0 held {} of {}",
                name_, frame.microbatch, own.num_blocks, own.num_sequences,
                first->second.num_blocks, first->second.num_sequences);
  if (is_last_) run.accounts.erase(frame.microbatch);
}

graph::StageHoldings StageMemory::holdings() const {
  graph::StageHoldings holdings{.stage = StageIndex(stage_), .held = {}, .logged = log_.all()};
  for (const auto& [id, request] : held_) holdings.held.push_back(table_.held(id));
  if (world_.plant == Plant::held_overstated)
    for (auto& held : holdings.held) ++held.num_positions;
  if (world_.plant == Plant::log_hole)
    for (auto& logged : holdings.logged)
      logged.num_positions = std::min(logged.num_positions + 1, kBlockTokens);
  return holdings;
}

int32_t StageMemory::num_held(std::span<const SequenceId> sequences, KvBlockId block) const {
  int32_t most = 0;
  for (const SequenceId id : sequences) {
    if (!held_.contains(id)) continue;
    const graph::StageHoldings::Held held = table_.held(id);  // and as it is reported
    const auto at = std::find(held.table.begin(), held.table.end(), block);
    if (at == held.table.end()) continue;
    const auto begin = static_cast<int32_t>(at - held.table.begin()) * kBlockTokens;
    most = std::max(most, std::clamp(held.num_positions - begin, 0, kBlockTokens));
  }
  return most;
}

void StageMemory::release_early(const graph::Microbatch& microbatch) {
  graph::Microbatch early;
  early.released = microbatch.released;
  run(SimFrame{}, early);
}

void StageMemory::plant_bug(graph::Microbatch& microbatch) const {
  if (world_.plant == Plant::copy_missed) microbatch.copies.clear();
  if (world_.plant == Plant::described_once && microbatch.stages != graph::StageSpan{})
    microbatch.descriptors.clear();
  if (world_.plant == Plant::release_lost && is_last_ && world_.random.chance(20))
    microbatch.released.clear();
  if (world_.plant == Plant::philox_position_lost)
    for (graph::SequenceDescriptor& d : microbatch.descriptors) {
      d.prompt.insert(d.prompt.end(), d.generated.begin(), d.generated.end());
      d.generated.clear();
    }
  if (world_.plant != Plant::position_off_by_one) return;
  for (graph::SequenceSlice& slice : microbatch.slices)
    if (slice.first_position > 0 && !chain_.holds(slice.id)) --slice.first_position;
}

}  // namespace chainpump::sim
