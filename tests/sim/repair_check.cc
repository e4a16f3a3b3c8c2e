#include "tests/sim/repair_check.h"

#include <algorithm>

namespace chainpump::sim {
namespace {

using graph::StageSpan;

/// The stages that compute a position, if no more do than must.
StageSpan least_span(KvBlockId block, int32_t offset, bool needs_result,
                     std::span<const SequenceId> running,
                     const std::vector<const StageMemory*>& stages) {
  const auto last = static_cast<int32_t>(stages.size()) - 1;
  StageSpan span{.first = needs_result ? last : last + 1, .last = needs_result ? last : -1};
  const auto memory = [&](int32_t stage) -> const StageMemory& {
    return *stages[static_cast<size_t>(stage)];
  };
  const auto holds = [&](int32_t stage) { return memory(stage).num_held(running, block) > offset; };
  const auto logged = [&](int32_t stage) {
    return holds(stage) && memory(stage).num_logged(block) > offset;
  };
  for (int32_t stage = 0; stage <= last; ++stage) {
    // What is lacked further down is computed from that log, next.
    if (span.first < stage && !needs_result && logged(stage)) break;
    if (holds(stage)) continue;
    span.first = std::min(span.first, stage);
    span.last = std::max(span.last, stage);
  }
  while (span.first > 0 && span.first <= last && !logged(span.first - 1)) --span.first;
  return span;
}

}  // namespace

std::string check_minimal(const graph::Microbatch& microbatch, std::span<const SequenceId> running,
                          const std::vector<const StageMemory*>& stages) {
  if (microbatch.stages == StageSpan{}) return {};
  for (const graph::SequenceSlice& slice : microbatch.slices)
    for (size_t i = 0; i < slice.tokens.size(); ++i) {
      const size_t p = static_cast<size_t>(slice.first_position) + i;
      const bool scores = std::any_of(microbatch.descriptors.begin(), microbatch.descriptors.end(),
                                      [&](const auto& d) {
                                        return d.id == slice.id && d.score.first_position >= 0 &&
                                               static_cast<int32_t>(p) >= d.score.first_position;
                                      });
      const bool needs_result = scores || (slice.sample && i + 1 == slice.tokens.size());
      const StageSpan least =
          least_span(slice.new_blocks[p / kBlockTokens], static_cast<int32_t>(p % kBlockTokens),
                     needs_result, running, stages);
      const bool enough = microbatch.stages.first >= least.first &&
                          (scores || microbatch.stages.last <= least.last);
      if (!enough)
        return fmt::format(
            "microbatch {}: stages {} to {} compute position {} of {}, {} to {} would do",
            microbatch.id, microbatch.stages.first, microbatch.stages.last, p, slice.id,
            least.first, least.last);
    }
  return {};
}

}  // namespace chainpump::sim
