// Whether the simulator's invariants find what they are for: each planted bug alone (plant.h), over
// seeds from 0 on, until one shows it.
#include <boost/test/unit_test.hpp>

#include "tests/sim/simulator.h"

namespace chainpump::sim {

BOOST_AUTO_TEST_CASE(planted_bugs_are_found) {
  constexpr uint64_t kSeeds = 300;  // those of `make test`
  size_t num_found = 0;
  for (const auto& [plant, name] : kPlants) {
    bool found = false;
    for (uint64_t seed = 0; seed < kSeeds && !found; ++seed) {
      const SimReport report = simulate({.seed = seed, .plant = plant});
      found = !report.wrong.empty();
      if (found) BOOST_TEST_MESSAGE(fmt::format("{}: seed {}: {}", name, seed, report.wrong));
    }
    if (!found) BOOST_TEST_MESSAGE(fmt::format("{}: not found", name));
    num_found += found ? 1 : 0;
  }
  BOOST_TEST(num_found * 10 >= kPlants.size() * 9);
}

}  // namespace chainpump::sim
