// Holds what a client of `chainpump chaos` received against the calm answer, token by token, and
// measures the pauses in it. Pure; one thread for each object.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "gateway/types.h"

namespace chainpump::cli {

/// A choice as it should be.
struct CalmChoice {
  std::vector<TokenId> tokens;
  std::string text;
  graph::FinishReason finish = graph::FinishReason::none;
};
using CalmAnswer = std::vector<CalmChoice>;

/// What came of one request, as it came.
class Receipt {
 public:
  explicit Receipt(int32_t num_choices);
  void add(const gateway::Delta& delta, TimePoint at);

  size_t num_tokens() const { return num_tokens_; }
  /// When each token of a choice came; those of one delta at once.
  std::span<const TimePoint> times(size_t choice) const { return choices_[choice].times; }
  size_t num_choices() const { return choices_.size(); }
  /// Of what came, as if it were right: the answer of a run that nothing disturbs.
  CalmAnswer answer() const;

 private:
  friend struct Comparison;
  struct Choice {
    std::vector<int32_t> indices;  // of each token within the choice, as it was said to be
    std::vector<TokenId> tokens;
    std::vector<TimePoint> times;
    std::string text;
    graph::FinishReason finish = graph::FinishReason::none;
  };
  std::vector<Choice> choices_;
  size_t num_tokens_ = 0;
  size_t num_foreign_ = 0;  // tokens of choices that there are none of
};

struct Comparison {
  int64_t lost = 0;        // tokens that never came, though later ones or the end did
  int64_t duplicated = 0;  // that came again
  int64_t differing = 0;   // that are others, or too many; a choice's text or end that is another
  std::string first;       // of these, for a person; empty: none

  /// `ended`: it says that it is whole. Otherwise only what came is compared.
  static Comparison of(const CalmAnswer& calm, const Receipt& received, bool ended);
  bool is_equal() const { return lost == 0 && duplicated == 0 && differing == 0; }

 private:
  void note(size_t choice, int64_t index, const char* what);
  void compare(const CalmChoice& calm, const Receipt::Choice& got, size_t choice, bool ended);
};

/// The longest time between two neighbouring tokens of a choice that a fault may have been the
/// cause of: the later came after it, the earlier before requests went on. Nothing if no token came
/// before the fault, or none after it.
std::optional<Duration> gap_across(std::span<const TimePoint> tokens, TimePoint fault,
                                   TimePoint went_on);

}  // namespace chainpump::cli
