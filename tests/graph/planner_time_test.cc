#include <boost/test/unit_test.hpp>
#include <chrono>

#include "graph/partition.h"

namespace chainpump::graph {

BOOST_AUTO_TEST_CASE(LargestChainsAreCutSoon) {
  ChainCosts costs;
  costs.layer_s.assign(1024, std::vector<double>(4096, 1.0));
  costs.fixed_s.assign(1024, 0.0);
  costs.fixed_s.back() = 100;
  const auto start = std::chrono::steady_clock::now();
  const auto ends = partition_chain(costs);
  BOOST_TEST((std::chrono::steady_clock::now() - start < std::chrono::seconds(5)));
  BOOST_TEST(ends.back() == 4096);
  BOOST_TEST(ends[1022] == 4095);  // the head alone is the bottleneck
}

}  // namespace chainpump::graph
