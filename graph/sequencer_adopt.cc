// What a new sequencer makes of sequences that stages hold of the one before: see
// Sequencer::adopt(). By the one law positions of equal requests hold equal KV, so a request that
// is asked for again finds its own by its identity and the choice's index.
#include <algorithm>
#include <map>

#include "base/check.h"
#include "graph/sequencer_draft.h"

namespace chainpump::graph {
namespace {

// Clients ask again as soon as they are told, within some tenths of a second.
constexpr Duration kOrphansMax = std::chrono::seconds(5);

using Held = StageHoldings::Held;

/// A stage that is behind holds the beginning of what one before it holds.
bool begins(const std::vector<KvBlockId>& table, const std::vector<KvBlockId>& with) {
  return with.size() <= table.size() && std::equal(with.begin(), with.end(), table.begin());
}

/// Of each sequence that all who hold it say the same of, what the one that holds most of it says.
std::vector<const Held*> agreed(std::span<const StageHoldings> stages) {
  std::map<SequenceId, const Held*> most;
  for (const StageHoldings& stage : stages)
    for (const Held& held : stage.held) {
      const Held*& best = most[held.id];
      if (best == nullptr || held.table.size() > best->table.size()) best = &held;
    }
  for (const StageHoldings& stage : stages)
    for (const Held& held : stage.held) {
      const Held*& best = most[held.id];
      if (best == nullptr) continue;
      const bool same = held.identity == best->identity && held.index == best->index &&
                        begins(best->table, held.table);
      if (!same || held.identity == 0) best = nullptr;
    }
  std::vector<const Held*> found;
  for (const auto& [id, held] : most)
    if (held != nullptr) found.push_back(held);
  return found;
}

/// Those that may be adopted side by side. Two have a block in common if they began alike; or one
/// had it before the other, and a stage that still holds that one has not seen the microbatch that
/// let go of it. A stage that holds both says which. The latter is not held by the first stage that
/// holds the other: what comes first along the chain is kept.
std::vector<const Held*> undisputed(std::span<const StageHoldings> stages) {
  std::vector<std::map<SequenceId, const Held*>> by_stage(stages.size());
  for (size_t i = 0; i < stages.size(); ++i)
    for (const Held& held : stages[i].held) by_stage[i].emplace(held.id, &held);
  const auto has_block = [&](size_t stage, SequenceId id, size_t index, KvBlockId block) {
    const auto found = by_stage[stage].find(id);
    if (found == by_stage[stage].end()) return false;
    const std::vector<KvBlockId>& table = found->second->table;
    return index < table.size() && table[index] == block;
  };
  const auto began_alike = [&](SequenceId a, SequenceId b, size_t index, KvBlockId block) {
    for (size_t stage = 0; stage < stages.size(); ++stage)
      if (has_block(stage, a, index, block) && has_block(stage, b, index, block)) return true;
    return false;
  };
  std::vector<const Held*> found = agreed(stages);
  const auto first_stage = [&](const Held* held) {
    size_t stage = 0;
    while (!by_stage[stage].contains(held->id)) ++stage;
    return stages[stage].stage;
  };
  std::stable_sort(found.begin(), found.end(),
                   [&](const Held* a, const Held* b) { return first_stage(a) < first_stage(b); });
  std::map<KvBlockId, std::vector<SequenceId>> owners;
  std::erase_if(found, [&](const Held* held) {
    for (size_t i = 0; i < held->table.size(); ++i) {
      const KvBlockId block = held->table[i];
      const std::vector<SequenceId>& others = owners[block];
      const auto alike = [&](SequenceId id) { return began_alike(id, held->id, i, block); };
      if (!others.empty() && std::none_of(others.begin(), others.end(), alike)) return true;
    }
    for (const KvBlockId block : held->table) owners[block].push_back(held->id);
    return false;
  });
  return found;
}

}  // namespace

void Sequencer::adopt(std::span<const StageHoldings> stages, TimePoint now) {
  CHECK(idle() && orphans_.empty());
  const auto max_slots = static_cast<size_t>(options_.max_queued + 2 * options_.max_sequences);
  for (const Held* held : undisputed(stages)) {
    const std::pair key(held->identity, held->index);
    if (orphans_.contains(key) || !store_.reserve(held->id, max_slots)) continue;
    if (cache_.take(held->table))
      orphans_.emplace(key, Orphan{held->id, held->table});
    else
      store_.unreserve(held->id);
  }
  orphans_until_ = now + kOrphansMax;
  repair(stages);
}

bool Sequencer::is_orphan(SequenceId id) const {
  return std::any_of(orphans_.begin(), orphans_.end(),
                     [&](const auto& orphan) { return orphan.second.id == id; });
}

/// Takes over what an orphan of its own has on the stages, if there is one and there is room for
/// the rest: under the orphan's id, so that for the stages it simply goes on.
bool Sequencer::adopt(Sequence& sequence) {
  RequestRecord& request = *sequence.request;
  const auto found = orphans_.find({request.what.identity, sequence.index});
  if (found == orphans_.end()) return false;
  const Orphan orphan = std::move(found->second);
  orphans_.erase(found);
  const auto num_held = static_cast<int32_t>(orphan.table.size());
  if (lacks_room(sequence, num_held)) let_orphans_go();
  if (lacks_room(sequence, num_held)) {
    let_go(orphan);
    return false;
  }
  const bool leads = request.leader == sequence.id;
  store_.take_over(sequence, orphan.id);
  if (leads) request.leader = sequence.id;
  sequence.table = orphan.table;
  extend_to_known(sequence);
  set_repairing(sequence, true);
  ++counters_.sequences_adopted;
  return true;
}

void Sequencer::let_go(const Orphan& orphan) {
  cache_.release(orphan.table);
  store_.unreserve(orphan.id);
  releasing_.push_back(orphan.id);
}

void Sequencer::let_orphans_go() {
  for (const auto& [key, orphan] : orphans_) let_go(orphan);
  orphans_.clear();
}

}  // namespace chainpump::graph
