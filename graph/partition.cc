#include "graph/partition.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace chainpump::graph {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

class Table {
 public:
  explicit Table(const ChainCosts& costs)
      : costs_(costs), stages_(costs.layer_s.size()), layers_(costs.layer_s[0].size()) {
    for (const auto& layers : costs.layer_s) {
      std::vector<double>& prefix = prefix_.emplace_back(1, 0.0);
      for (const double seconds : layers) prefix.push_back(prefix.back() + seconds);
    }
  }

  /// best[s][j]: first s stages hold the first j layers. Combines stage times by `join`, using only
  /// stages of at most `stage_max`; fills the cuts.
  template <typename Join>
  double solve(double stage_max, Join join, std::vector<int32_t>* ends) {
    std::vector<std::vector<double>> best(stages_ + 1, std::vector<double>(layers_ + 1, kNever));
    std::vector<std::vector<int32_t>> from(stages_ + 1, std::vector<int32_t>(layers_ + 1, 0));
    best[0][0] = 0;
    for (size_t s = 1; s <= stages_; ++s)
      for (size_t j = s; j + (stages_ - s) <= layers_; ++j)
        for (size_t i = j; i-- > s - 1;) {
          const double seconds = stage_s(s - 1, i, j);
          // Longer stages only get slower.
          if (seconds > stage_max || join(0.0, seconds) >= best[s][j]) break;
          const double total = join(best[s - 1][i], seconds);
          if (total >= best[s][j]) continue;
          best[s][j] = total;
          from[s][j] = static_cast<int32_t>(i);
        }
    if (ends != nullptr) {
      ends->assign(stages_, static_cast<int32_t>(layers_));
      for (size_t s = stages_; s > 1; --s)
        (*ends)[s - 2] = from[s][static_cast<size_t>((*ends)[s - 1])];
    }
    return best[stages_][layers_];
  }

 private:
  double stage_s(size_t stage, size_t begin, size_t end) const {
    return prefix_[stage][end] - prefix_[stage][begin] + costs_.fixed_s[stage];
  }

  const ChainCosts& costs_;
  size_t stages_;
  size_t layers_;
  std::vector<std::vector<double>> prefix_;
};

}  // namespace

std::vector<int32_t> partition_chain(const ChainCosts& costs) {
  CHECK(!costs.layer_s.empty());
  CHECK_EQ(costs.layer_s.size(), costs.fixed_s.size());
  CHECK_LE(costs.layer_s.size(), costs.layer_s[0].size());
  Table table(costs);
  const double bottleneck = table.solve(
      kNever, [](double a, double b) { return std::max(a, b); }, nullptr);
  std::vector<int32_t> ends;
  // A hair of room for the rounding of sums.
  table.solve(
      bottleneck * (1 + 1e-12), [](double a, double b) { return a + b * b; }, &ends);
  return ends;
}

}  // namespace chainpump::graph
