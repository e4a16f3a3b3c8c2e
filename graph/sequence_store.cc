#include "graph/sequence_store.h"

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
  free_slots_.push_back(sequence.id.value & (kMaxSlots - 1));
  sequence = Sequence{};
}

void SequenceStore::renew_id(Sequence& sequence) {
  sequence.id = next_id(sequence.id.value & (kMaxSlots - 1));
}

}  // namespace chainpump::graph
