// The tokens of a vocabulary in one fixed order, descending value and ties by token id, found
// lazily: a draw looks at a few hundred of a hundred thousand. Values are cut into bands below the
// largest; a band is gathered by one vector scan and then popped from a heap, so visiting n tokens
// costs O(vocabulary + n log n). One thread.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "kernels/cpu/isa.h"

namespace chainpump::models {

struct RankedToken {
  float value = 0.0f;
  TokenId token = 0;
};

class DescendingTokens {
 public:
  /// `values` are at most 0 (the largest is 0) and must outlive this. NaN and values at or below
  /// `floor` are never visited.
  DescendingTokens(kernels::cpu::Isa isa, std::span<const float> values, float floor);

  std::optional<RankedToken> next();

 private:
  void gather();

  kernels::cpu::Isa isa_;
  std::span<const float> values_;
  float floor_;
  float upper_;  // values above have been gathered
  float width_ = 4.0f;
  std::vector<RankedToken> heap_;
};

/// The first `n` in the order (fewer if there are fewer), any values but NaN.
std::vector<RankedToken> first_in_order(kernels::cpu::Isa isa, std::span<const float> values,
                                        size_t n);

}  // namespace chainpump::models
