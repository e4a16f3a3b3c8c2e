// Where the cumulative weight of a vocabulary's tokens, in the fixed order of a draw (descending
// value, ties by token id), reaches a given sum: found without sorting, also where the
// distribution is flat. The weight is summed by bands of the value; the band in which the sum is
// reached is cut into finer ones, and only what is left at the end is sorted. The bands are fixed
// and their sums taken in a fixed order, so a result is a function of the values alone. One thread.
#pragma once

#include <array>
#include <span>

#include "base/ids.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/math.h"

namespace chainpump::models {

class WeightedOrder {
 public:
  /// A token's weight is exp(value). `values` are at most 0 and must outlive this.
  WeightedOrder(kernels::cpu::Isa isa, std::span<const float> values);

  /// The weight of all; NaN if a value is.
  double mass() const { return mass_; }

  struct Reach {
    TokenId token = 0;
    double weight = 0;  // of the tokens up to it and its own
  };
  /// The first token at which the cumulative weight is `target` or more, the last one if rounding
  /// keeps it below. 0 < target <= mass(), which must be a number.
  Reach reach(double target) const;

 private:
  kernels::cpu::Isa isa_;
  std::span<const float> values_;
  std::array<double, kernels::cpu::kNumBands> sums_;
  double mass_ = 0;
};

}  // namespace chainpump::models
