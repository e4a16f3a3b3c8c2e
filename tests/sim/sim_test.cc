// Seeds of the simulator: whatever goes wrong names the seed, and `chainpump-sim --seed N --trace`
// shows how it came to that.
#include <boost/test/unit_test.hpp>

#include "tests/sim/simulator.h"

namespace chainpump::sim {

BOOST_AUTO_TEST_SUITE(sim)

BOOST_AUTO_TEST_CASE(what_must_be_true_is_always_true) {
  ClientCounts counts;
  uint64_t preemptions = 0;
  uint64_t hits = 0;
  int num_saturated = 0;
  int deaths = 0;
  uint64_t rebuilt = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const SimReport report = simulate({.seed = seed});
    BOOST_REQUIRE_MESSAGE(report.wrong.empty(), "seed " << seed << ": " << report.wrong);
    counts.completed += report.clients.completed;
    counts.cancelled += report.clients.cancelled;
    counts.late += report.clients.late;
    counts.overloaded += report.clients.overloaded;
    counts.disconnected += report.clients.disconnected;
    preemptions += report.preemptions;
    hits += report.prompt_tokens_hit;
    num_saturated += report.saturated ? 1 : 0;
    deaths += report.deaths;
    rebuilt += report.positions_rebuilt;
  }
  BOOST_TEST_MESSAGE(fmt::format(
      "{} completed, {} cancelled, {} late, {} refused, {} disconnected; {} preemptions, {} tokens "
      "hit; {} saturated runs; {} ranks replaced, {} positions rebuilt",
      counts.completed, counts.cancelled, counts.late, counts.overloaded, counts.disconnected,
      preemptions, hits, num_saturated, deaths, rebuilt));
  // Else nothing was tried.
  BOOST_TEST(counts.completed > 3000);
  BOOST_TEST(counts.cancelled > 300);
  BOOST_TEST(counts.late > 30);
  BOOST_TEST(counts.overloaded > 20);
  BOOST_TEST(counts.disconnected > 100);
  BOOST_TEST(preemptions > 40u);
  BOOST_TEST(hits > 5000u);
  BOOST_TEST(num_saturated > 15);
  BOOST_TEST(deaths > 100);
  BOOST_TEST(rebuilt > 2000u);
}

BOOST_AUTO_TEST_CASE(a_seed_gives_the_same_trace_again) {
  uint64_t last = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const SimReport once = simulate({.seed = seed});
    const SimReport again = simulate({.seed = seed});
    BOOST_TEST(once.trace_hash == again.trace_hash);
    BOOST_TEST(once.num_events == again.num_events);
    BOOST_TEST(once.trace_hash != last);
    last = once.trace_hash;
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::sim
