// A growing sequence's tokens beside a plain vector of them.
#include "graph/token_log.h"

#include <boost/test/unit_test.hpp>
#include <random>

namespace chainpump::graph {

BOOST_AUTO_TEST_CASE(token_log_holds_what_was_put_in) {
  std::mt19937 random(7);
  for (const size_t num_first : {0u, 1u, 8u, 100u}) {
    std::vector<TokenId> expected(num_first);
    for (size_t i = 0; i < num_first; ++i) expected[i] = static_cast<TokenId>(random() % 1000);
    TokenLog log(expected);
    for (int i = 0; i < 300; ++i) {
      BOOST_TEST(log.size() == static_cast<int32_t>(expected.size()));
      if (!expected.empty()) BOOST_TEST(log.back() == expected.back());
      if (random() % 10 == 0) BOOST_TEST(log.all() == expected, boost::test_tools::per_element());
      expected.push_back(static_cast<TokenId>(random() % 1000));
      log.push_back(expected.back());
    }
    BOOST_TEST(log.all() == expected, boost::test_tools::per_element());
  }
}

}  // namespace chainpump::graph
