#include "base/step_trace.h"

#include <algorithm>

namespace chainpump {
namespace {

uint64_t word_of(TimePoint time) { return static_cast<uint64_t>(time.since_epoch.count()); }
/// A lane below a number of tokens.
uint64_t word_of(uint8_t lane, int32_t num_tokens) {
  return uint64_t{static_cast<uint32_t>(num_tokens)} << 8 | lane;
}
TimePoint time_of(uint64_t word) { return {Duration(static_cast<int64_t>(word))}; }

}  // namespace

void StepTrace::record(const StepEvent& event) {
  const uint64_t number = num_recorded_.load(std::memory_order_relaxed);
  Place& place = places_[number % kCapacity];
  place.version.store(2 * number + 1, std::memory_order_relaxed);
  const std::array<uint64_t, kWords> words = {
      event.microbatch.value,       word_of(event.lane, event.num_tokens),
      word_of(event.received),      word_of(event.credit_from),
      word_of(event.credit_until),  word_of(event.compute_from),
      word_of(event.compute_until), word_of(event.sent)};
  // Release, so that whoever reads a word of this event also sees the odd version before it.
  for (size_t i = 0; i < kWords; ++i) place.words[i].store(words[i], std::memory_order_release);
  place.version.store(2 * number + 2, std::memory_order_release);
  num_recorded_.store(number + 1, std::memory_order_release);
}

StepEvents StepTrace::read(uint64_t since) const {
  StepEvents out;
  out.now = steady_clock().now();
  const uint64_t end = num_recorded_.load(std::memory_order_acquire);
  const uint64_t begin = std::max(since, end - std::min(end, kCapacity));
  out.next = std::max(since, std::min(end, begin + kMaxEvents));
  out.lost = begin - since;
  for (uint64_t number = begin; number < out.next; ++number) {
    const Place& place = places_[number % kCapacity];
    const uint64_t version = place.version.load(std::memory_order_acquire);
    std::array<uint64_t, kWords> words;
    for (size_t i = 0; i < kWords; ++i) words[i] = place.words[i].load(std::memory_order_acquire);
    if (version != 2 * number + 2 || place.version.load(std::memory_order_relaxed) != version) {
      ++out.lost;  // overwritten meanwhile
      continue;
    }
    out.events.push_back({.microbatch = MicrobatchId(words[0]),
                          .lane = static_cast<uint8_t>(words[1]),
                          .num_tokens = static_cast<int32_t>(words[1] >> 8),
                          .received = time_of(words[2]),
                          .credit_from = time_of(words[3]),
                          .credit_until = time_of(words[4]),
                          .compute_from = time_of(words[5]),
                          .compute_until = time_of(words[6]),
                          .sent = time_of(words[7])});
  }
  return out;
}

}  // namespace chainpump
