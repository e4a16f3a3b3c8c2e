// What a step costs on the slowest stage, learned from measured steps:
//   t = a + b * tokens + d * attended,   attended = sum over slices of c * (prefix + c / 2)
// by recursive least squares with forgetting. Errors are relative, for a step of a millisecond says
// as much as one of a second; outliers are clipped at three times the usual error; coefficients are
// kept >= 0. What no step tells anything about (decodes alone cannot part a from b) stays where it
// was. Starts from the plan's prediction. The scheduler sizes prefill chunks with it so that
// microbatches take equal time. Pure; one thread; O(1) per observation.
#pragma once

#include <array>
#include <cstdint>

#include "base/clock.h"

namespace chainpump::graph {

/// What a microbatch asks of a stage.
struct StepWork {
  int64_t tokens = 0;
  double attended = 0;  // pairs of a token and one that it attends to
  /// A slice of `num_tokens` that follow `prefix` positions.
  void add(int64_t num_tokens, int64_t prefix);
};

class StepCost {
 public:
  /// All in seconds, all >= 0.
  struct Coefficients {
    double overhead_s = 0;
    double token_s = 0;
    double attended_s = 0;
  };

  explicit StepCost(const Coefficients& prior);

  /// A step with this work took so long. Ignored if `spent` is not positive: it was not measured.
  void observe(const StepWork& work, Duration spent);
  double predict_s(const StepWork& work) const;
  const Coefficients& coefficients() const { return coefficients_; }

  /// Most tokens that can follow `prefix` on top of `base` within `budget_s` for the whole step; at
  /// least 1, at most `limit`.
  int32_t tokens_within(const StepWork& base, int64_t prefix, double budget_s, int32_t limit) const;

 private:
  using Vector = std::array<double, 3>;
  using Matrix = std::array<Vector, 3>;

  Vector features(const StepWork& work) const;
  void project();

  // In units of `scale_`, so that all three are of the size of 1: the least-squares solution, which
  // may be negative, and how sure of it the steps so far make us.
  Vector scale_;
  Vector solution_{};
  Matrix information_{};
  double usual_error_ = 1;  // mean of the clipped relative errors
  Coefficients coefficients_;
};

}  // namespace chainpump::graph
