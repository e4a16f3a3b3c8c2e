#include "graph/lane_fill.h"

#include <algorithm>

#include "base/check.h"

namespace chainpump::graph {

LaneFill::LaneFill(int32_t num_stages, int32_t first_block, int32_t num_blocks,
                   int32_t block_tokens)
    : num_stages_(num_stages),
      first_block_(first_block),
      num_blocks_(static_cast<size_t>(num_blocks)),
      block_tokens_(block_tokens),
      held_(static_cast<size_t>(num_stages) * num_blocks_, 0),
      logged_(held_.size(), 0) {}

void LaneFill::hold(StageIndex stage, std::span<const KvBlockId> table, int32_t num_positions) {
  for (size_t i = 0; i < table.size(); ++i) {
    const int32_t begin = static_cast<int32_t>(i) * block_tokens_;
    if (begin >= num_positions) return;
    int32_t& held = held_[at(stage.value, table[i])];
    held = std::max(held, std::min(block_tokens_, num_positions - begin));
  }
}

void LaneFill::log(StageIndex stage, KvBlockId block, int32_t num_positions) {
  const size_t index = at(stage.value, block);
  // What is logged beyond what is held is of somebody who had the block before.
  logged_[index] = std::min(num_positions, held_[index]);
}

void LaneFill::forget(KvBlockId block) {
  for (int32_t stage = 0; stage < num_stages_; ++stage)
    held_[at(stage, block)] = logged_[at(stage, block)] = 0;
}

std::optional<StageSpan> LaneFill::span_of(KvBlockId block, int32_t offset,
                                           bool needs_result) const {
  StageSpan span{.first = num_stages_, .last = -1};
  bool logged = false;  // by some stage after the last that lacks it so far
  for (int32_t stage = 0; stage < num_stages_; ++stage) {
    if (held_[at(stage, block)] > offset) {
      logged |= logged_[at(stage, block)] > offset;
      continue;
    }
    if (span.last >= 0 && logged && !needs_result) break;  // the next time
    span.first = std::min(span.first, stage);
    span.last = stage;
    logged = false;
  }
  if (needs_result) {
    span.last = num_stages_ - 1;
    span.first = std::min(span.first, span.last);
  }
  if (span.last < 0) return std::nullopt;
  while (span.first > 0 && logged_[at(span.first - 1, block)] <= offset) --span.first;
  return span;
}

std::optional<LaneFill::Stretch> LaneFill::next(std::span<const KvBlockId> table, int32_t from,
                                                int32_t end, int32_t results_from) const {
  std::optional<Stretch> stretch;
  for (int32_t p = from; p < end; ++p) {
    const KvBlockId block = table[static_cast<size_t>(p / block_tokens_)];
    const std::optional<StageSpan> span = span_of(block, p % block_tokens_, p >= results_from);
    if (stretch && span != stretch->stages) break;
    if (!span) continue;
    if (!stretch) stretch = Stretch{.begin = p, .end = p, .stages = *span};
    stretch->end = p + 1;
  }
  return stretch;
}

void LaneFill::fill(std::span<const KvBlockId> table, int32_t begin, int32_t end,
                    StageSpan stages) {
  const int32_t last = std::min(stages.last, num_stages_ - 1);
  for (int32_t i = begin / block_tokens_; i * block_tokens_ < end; ++i) {
    const int32_t upto = std::min(block_tokens_, end - i * block_tokens_);
    for (int32_t stage = stages.first; stage <= last; ++stage) {
      int32_t& held = held_[at(stage, table[static_cast<size_t>(i)])];
      held = std::max(held, upto);
    }
  }
}

}  // namespace chainpump::graph
