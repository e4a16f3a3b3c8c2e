#include "cli/chaos_check.h"

#include <algorithm>

namespace chainpump::cli {

Receipt::Receipt(int32_t num_choices) : choices_(static_cast<size_t>(num_choices)) {}

void Receipt::add(const gateway::Delta& delta, TimePoint at) {
  num_tokens_ += delta.tokens.size();
  if (delta.choice < 0 || static_cast<size_t>(delta.choice) >= choices_.size()) {
    num_foreign_ += delta.tokens.size();
    return;
  }
  Choice& choice = choices_[static_cast<size_t>(delta.choice)];
  for (size_t i = 0; i < delta.tokens.size(); ++i) {
    choice.indices.push_back(delta.first_index + static_cast<int32_t>(i));
    choice.tokens.push_back(delta.tokens[i]);
    choice.times.push_back(at);
  }
  choice.text += delta.text;
  if (delta.finish != graph::FinishReason::none) choice.finish = delta.finish;
}

CalmAnswer Receipt::answer() const {
  CalmAnswer out;
  for (const Choice& choice : choices_)
    out.push_back({.tokens = choice.tokens, .text = choice.text, .finish = choice.finish});
  return out;
}

void Comparison::note(size_t choice, int64_t index, const char* what) {
  if (first.empty()) first = fmt::format("choice {}, token {}: {}", choice, index, what);
}

void Comparison::compare(const CalmChoice& calm, const Receipt::Choice& got, size_t choice,
                         bool ended) {
  const auto num_calm = static_cast<int64_t>(calm.tokens.size());
  int64_t next = 0;  // the index that should come
  for (size_t i = 0; i < got.tokens.size(); ++i) {
    const int64_t index = got.indices[i];
    if (index < next) {
      ++duplicated;
      note(choice, index, "came again");
      continue;
    }
    if (index > next) {
      lost += index - next;
      note(choice, next, "never came");
    }
    if (index >= num_calm || calm.tokens[static_cast<size_t>(index)] != got.tokens[i]) {
      ++differing;
      note(choice, index, index >= num_calm ? "is one too many" : "is another");
    }
    next = index + 1;
  }
  if (!ended) return;
  if (next < num_calm) {
    lost += num_calm - next;
    note(choice, next, "never came");
  } else if (got.text != calm.text || got.finish != calm.finish) {
    ++differing;
    note(choice, num_calm, "the text or the reason of the end is another");
  }
}

Comparison Comparison::of(const CalmAnswer& calm, const Receipt& received, bool ended) {
  CHECK_EQ(calm.size(), received.choices_.size());
  Comparison out;
  for (size_t i = 0; i < calm.size(); ++i) out.compare(calm[i], received.choices_[i], i, ended);
  if (received.num_foreign_ > 0) {
    out.differing += static_cast<int64_t>(received.num_foreign_);
    out.note(calm.size(), 0, "came of a choice that was not asked for");
  }
  return out;
}

std::optional<Duration> gap_across(std::span<const TimePoint> tokens, TimePoint fault,
                                   TimePoint went_on) {
  const auto after = std::upper_bound(tokens.begin(), tokens.end(), fault);
  if (after == tokens.begin() || after == tokens.end()) return std::nullopt;
  Duration gap{0};
  for (auto later = after; later != tokens.end() && (later == after || *(later - 1) < went_on);
       ++later)
    gap = std::max(gap, *later - *(later - 1));
  return gap;
}

}  // namespace chainpump::cli
