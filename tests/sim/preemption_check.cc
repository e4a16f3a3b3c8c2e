#include "tests/sim/preemption_check.h"

#include <fmt/format.h>

#include <algorithm>

namespace chainpump::sim {

void PreemptionCheck::submitted(const graph::Request& request) {
  for (int i = 0; i < request.num_choices; ++i)
    alive_[{request.id.value, request.first_choice + static_cast<uint32_t>(i)}] = {
        request.id, {request.priority, ++last_age_}};
}

void PreemptionCheck::ended(const graph::Choice& choice) {
  std::erase_if(alive_, [&](const auto& entry) {
    return entry.second.request == choice.request && entry.first.choice == choice.index;
  });
}

void PreemptionCheck::ended(RequestId request) {
  std::erase_if(alive_, [&](const auto& entry) { return entry.second.request == request; });
}

/// For its next position: its blocks hold what it knew when it was described, then grow one by one.
bool PreemptionCheck::needs_block(const Held& held) const {
  return !held.scoring && held.num_sent >= held.num_known && held.num_sent % block_tokens_ == 0;
}

std::string PreemptionCheck::formed(const graph::Microbatch& microbatch) {
  std::string wrong;
  for (const SequenceId id : microbatch.released) {
    const auto victim = held_.find(id);
    if (victim == held_.end()) continue;
    const auto alive = alive_.find(victim->second.name);
    if (alive == alive_.end()) continue;  // it has ended
    const bool taken_by_higher = std::any_of(held_.begin(), held_.end(), [&](const auto& entry) {
      const auto taker = alive_.find(entry.second.name);
      return taker != alive_.end() && needs_block(entry.second) &&
             taker->second.rank.higher_than(alive->second.rank);
    });
    if (!taken_by_higher)
      wrong = fmt::format(
          "request {} choice {} was preempted in microbatch {}, and nobody who ranks higher needed "
          "a block",
          alive->second.request, alive->first.choice, microbatch.id);
  }
  for (const SequenceId id : microbatch.released) held_.erase(id);
  for (const graph::SequenceDescriptor& d : microbatch.descriptors) {
    auto num_known = static_cast<int32_t>(d.prompt.size() + d.generated.size());
    // Who is described again has the blocks that it had: its last token may have found none yet.
    if (const auto held = held_.find(d.id); held != held_.end())
      num_known = std::max(held->second.num_known, num_known - 1);
    held_[d.id] = {.name = {static_cast<uint64_t>(d.sampling.top_k), d.sequence_index},
                   .num_known = num_known,
                   .num_sent = 0,
                   .scoring = d.score.first_position >= 0};
  }
  for (const graph::SequenceSlice& slice : microbatch.slices)
    if (const auto held = held_.find(slice.id); held != held_.end())
      held->second.num_sent = slice.first_position + static_cast<int32_t>(slice.tokens.size());
  return wrong;
}

}  // namespace chainpump::sim
