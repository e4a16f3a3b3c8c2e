// Cutting a chain of layers into stages so that the slowest stage is as fast as can be: the
// bottleneck sets the rate of a pipeline. Pure; any thread.
#pragma once

#include <cstdint>
#include <vector>

namespace chainpump::graph {

struct ChainCosts {
  /// [stage][layer] seconds: stages may have different numbers of threads.
  std::vector<std::vector<double>> layer_s;
  /// [stage] seconds that do not move with the cut: embedding at the first, head at the last.
  std::vector<double> fixed_s;
};

/// Ends of the stages, [num_stages], the last equal to the number of layers. Every stage gets at
/// least one layer: num_stages <= number of layers must hold. The largest stage time is the least
/// possible; among such cuts the sum of squared stage times is the least. O(stages * layers^2)
/// at worst, far less where costs are alike.
std::vector<int32_t> partition_chain(const ChainCosts& costs);

}  // namespace chainpump::graph
