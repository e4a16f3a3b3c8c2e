#include "graph/sequence_store.h"

#include <algorithm>

#include "base/check.h"

namespace chainpump::graph {
namespace {

constexpr int kLaneShift = 56;
constexpr int kCounterShift = 20;

}  // namespace

SequenceId SequenceStore::next_id(size_t slot) {
  ++last_;
  CHECK_LT(last_, uint64_t{1} << (kLaneShift - kCounterShift));
  return SequenceId(uint64_t{lane_} << kLaneShift | last_ << kCounterShift | slot);
}

uint8_t SequenceStore::lane_of(SequenceId id) {
  return static_cast<uint8_t>(id.value >> kLaneShift);
}

void SequenceStore::skip(SequenceId id) {
  if (lane_of(id) != lane_) return;
  const uint64_t counter = (id.value & ((uint64_t{1} << kLaneShift) - 1)) >> kCounterShift;
  last_ = std::max(last_, counter);
}

Sequence& SequenceStore::add() {
  if (free_slots_.empty()) {
    CHECK_LT(slots_.size(), kMaxSlots);
    free_slots_.push_back(slots_.size());
    slots_.push_back(std::make_unique<Sequence>());
  }
  const size_t slot = free_slots_.back();
  free_slots_.pop_back();
  Sequence& sequence = *slots_[slot];
  sequence.id = next_id(slot);
  return sequence;
}

void SequenceStore::remove(Sequence& sequence) {
  free_slots_.push_back(slot_of(sequence.id));
  sequence = Sequence{};
}

std::vector<Sequence*> SequenceStore::in_state(Sequence::State state) const {
  std::vector<Sequence*> found;
  for (const auto& slot : slots_)
    if (slot->id.value != 0 && slot->state == state) found.push_back(slot.get());
  return found;
}

void SequenceStore::renew_id(Sequence& sequence) { sequence.id = next_id(slot_of(sequence.id)); }

bool SequenceStore::reserve(SequenceId id, size_t max_slots) {
  const size_t slot = slot_of(id);
  if (id.value == 0 || lane_of(id) != lane_ || slot >= max_slots) return false;
  while (slots_.size() <= slot) {
    free_slots_.push_back(slots_.size());
    slots_.push_back(std::make_unique<Sequence>());
  }
  const auto found = std::find(free_slots_.begin(), free_slots_.end(), slot);
  if (found == free_slots_.end()) return false;
  free_slots_.erase(found);
  skip(id);
  return true;
}

void SequenceStore::take_over(Sequence& sequence, SequenceId id) {
  const size_t slot = slot_of(sequence.id);
  std::swap(slots_[slot], slots_[slot_of(id)]);
  free_slots_.push_back(slot);
  sequence.id = id;
}

}  // namespace chainpump::graph
