#include "models/sampling/descending.h"

#include <algorithm>
#include <array>
#include <limits>

#include "kernels/cpu/math.h"

namespace chainpump::models {
namespace {

/// Whether a comes after b: the order of a heap whose top is first.
bool comes_after(const RankedToken& a, const RankedToken& b) {
  return a.value != b.value ? a.value < b.value : a.token > b.token;
}

constexpr size_t kScanTokens = 2048;  // whose indices fit the stack and the first cache
using Indices = std::array<int32_t, kScanTokens>;

}  // namespace

DescendingTokens::DescendingTokens(kernels::cpu::Isa isa, std::span<const float> values,
                                   float floor)
    : isa_(isa), values_(values), floor_(floor), upper_(std::numeric_limits<float>::infinity()) {}

void DescendingTokens::gather() {
  const float lower = upper_ == std::numeric_limits<float>::infinity() ? -width_ : upper_ - width_;
  const float from = std::max(lower, floor_);
  Indices indices;
  for (size_t begin = 0; begin < values_.size(); begin += kScanTokens) {
    const auto part = values_.subspan(begin, std::min(kScanTokens, values_.size() - begin));
    const size_t found = kernels::cpu::select(isa_, part, from, upper_, indices);
    for (size_t i = 0; i < found; ++i) {
      const auto at = static_cast<size_t>(indices[i]);
      heap_.push_back({part[at], static_cast<TokenId>(begin + at)});
    }
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

std::vector<RankedToken> first_in_order(kernels::cpu::Isa isa, std::span<const float> values,
                                        size_t n) {
  std::vector<RankedToken> heap;  // its top is the last of those kept
  if (n == 0) return heap;
  const auto comes_before = [](const RankedToken& a, const RankedToken& b) {
    return comes_after(b, a);
  };
  const auto offer = [&](size_t i) {
    const float value = values[i];
    if (value != value || (heap.size() == n && !(value > heap.front().value))) return;
    if (heap.size() == n) {
      std::pop_heap(heap.begin(), heap.end(), comes_before);
      heap.pop_back();
    }
    heap.push_back({value, static_cast<TokenId>(i)});
    std::push_heap(heap.begin(), heap.end(), comes_before);
  };
  size_t begin = 0;
  while (begin < values.size() && heap.size() < n) offer(begin++);
  // From here on only what is larger than the last of those kept can enter.
  Indices indices;
  while (begin < values.size()) {
    const auto part = values.subspan(begin, std::min(kScanTokens, values.size() - begin));
    const size_t found = kernels::cpu::select(isa, part, heap.front().value,
                                              std::numeric_limits<float>::infinity(), indices);
    for (size_t i = 0; i < found; ++i) offer(begin + static_cast<size_t>(indices[i]));
    begin += part.size();
  }
  std::sort_heap(heap.begin(), heap.end(), comes_before);
  return heap;
}

}  // namespace chainpump::models
