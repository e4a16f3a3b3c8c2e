#include "models/sampling/token_counts.h"

#include "base/check.h"

namespace chainpump::models {

TokenCounts::Entry& TokenCounts::entry(TokenId token) {
  const auto [at, fresh] = index_.try_emplace(token, entries_.size());
  if (fresh) entries_.push_back({token, 0});
  return entries_[at->second];
}

void TokenCounts::penalize(const graph::SamplingParams& params, std::span<float> logits) const {
  for (const Entry& entry : entries_) {
    CHECK_LT(static_cast<size_t>(entry.token), logits.size());
    float& logit = logits[static_cast<size_t>(entry.token)];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (entry.in_output == 0) continue;
    logit -= params.frequency_penalty * static_cast<float>(entry.in_output);
    logit -= params.presence_penalty;
  }
}

}  // namespace chainpump::models
