#include "models/sampling/descending.h"

#include <algorithm>
#include <limits>

namespace chainpump::models {
namespace {

/// Whether a comes after b: the order of a heap whose top is first.
bool comes_after(const RankedToken& a, const RankedToken& b) {
  return a.value != b.value ? a.value < b.value : a.token > b.token;
}

}  // namespace

DescendingTokens::DescendingTokens(std::span<const float> values, float floor)
    : values_(values), floor_(floor), upper_(std::numeric_limits<float>::infinity()) {}

void DescendingTokens::gather() {
  const float lower = upper_ == std::numeric_limits<float>::infinity() ? -width_ : upper_ - width_;
  const float from = std::max(lower, floor_);
  for (size_t i = 0; i < values_.size(); ++i) {
    const float value = values_[i];
    if (value > from && value <= upper_) heap_.push_back({value, static_cast<TokenId>(i)});
  }
  std::make_heap(heap_.begin(), heap_.end(), comes_after);
  upper_ = from;
  width_ *= 2;  // the further down, the less likely that anybody looks: fewer scans
}

std::optional<RankedToken> DescendingTokens::next() {
  while (heap_.empty()) {
    if (upper_ <= floor_) return std::nullopt;
    gather();
  }
  std::pop_heap(heap_.begin(), heap_.end(), comes_after);
  const RankedToken top = heap_.back();
  heap_.pop_back();
  return top;
}

std::vector<RankedToken> first_in_order(std::span<const float> values, size_t n) {
  std::vector<RankedToken> heap;  // its top is the last of those kept
  if (n == 0) return heap;
  const auto comes_before = [](const RankedToken& a, const RankedToken& b) {
    return comes_after(b, a);
  };
  for (size_t i = 0; i < values.size(); ++i) {
    const float value = values[i];
    if (value != value || (heap.size() == n && !(value > heap.front().value))) continue;
    if (heap.size() == n) {
      std::pop_heap(heap.begin(), heap.end(), comes_before);
      heap.pop_back();
    }
    heap.push_back({value, static_cast<TokenId>(i)});
    std::push_heap(heap.begin(), heap.end(), comes_before);
  }
  std::sort_heap(heap.begin(), heap.end(), comes_before);
  return heap;
}

}  // namespace chainpump::models
