// Seeds of the simulator: whatever goes wrong names the seed, and `chainpump-sim --seed N --trace`
// shows how it came to that.
#include <boost/test/unit_test.hpp>

#include "tests/sim/simulator.h"

namespace chainpump::sim {

constexpr uint64_t kSeeds = 300;

BOOST_AUTO_TEST_SUITE(sim)

BOOST_AUTO_TEST_CASE(what_must_be_true_is_always_true) {
  SimReport sum;
  int num_saturated = 0;
  int num_failed = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const SimReport report = simulate({.seed = seed});
    BOOST_REQUIRE_MESSAGE(report.wrong.empty(), "seed " << seed << ": " << report.wrong);
    sum.clients.completed += report.clients.completed;
    sum.clients.cancelled += report.clients.cancelled;
    sum.clients.late += report.clients.late;
    sum.clients.overloaded += report.clients.overloaded;
    sum.clients.again += report.clients.again;
    sum.preemptions += report.preemptions;
    sum.prompt_tokens_hit += report.prompt_tokens_hit;
    sum.positions_rebuilt += report.positions_rebuilt;
    sum.faults += report.faults;
    sum.repairs += report.repairs;
    sum.moves += report.moves;
    sum.changes += report.changes;
    sum.coordinators += report.coordinators - 1;
    sum.calls_lost += report.calls_lost;
    sum.stale_refused += report.stale_refused;
    sum.longest_ending = std::max(sum.longest_ending, report.longest_ending);
    num_saturated += report.saturated ? 1 : 0;
    num_failed += report.clients.failed > 0 ? 1 : 0;
  }
  BOOST_TEST_MESSAGE(fmt::format(
      "{} completed, {} cancelled, {} late, {} refused, {} again at another gateway; {} "
      "preemptions, {} tokens hit, {} positions rebuilt; {} saturated runs, {} that failed; {} "
      "faults, {} repairs, {} moves, {} changes of plan, {} coordinators died; {} calls lost, {} "
      "stale ones refused; "
      "the last "
      "request ended {:.1f} s after the faults",
      sum.clients.completed, sum.clients.cancelled, sum.clients.late, sum.clients.overloaded,
      sum.clients.again, sum.preemptions, sum.prompt_tokens_hit, sum.positions_rebuilt,
      num_saturated, num_failed, sum.faults, sum.repairs, sum.moves, sum.changes, sum.coordinators,
      sum.calls_lost, sum.stale_refused, to_seconds(sum.longest_ending)));
  // Else nothing was tried.
  BOOST_TEST(sum.clients.completed > 3000);
  BOOST_TEST(sum.clients.cancelled > 300);
  BOOST_TEST(sum.clients.late > 30);
  BOOST_TEST(sum.clients.overloaded > 20);
  BOOST_TEST(sum.clients.again > 100);
  BOOST_TEST(sum.preemptions > 40u);
  BOOST_TEST(sum.prompt_tokens_hit > 5000u);
  BOOST_TEST(sum.positions_rebuilt > 2000u);
  BOOST_TEST(num_saturated > 15);
  BOOST_TEST(num_failed > 3);
  BOOST_TEST(sum.faults > 500);
  BOOST_TEST(sum.repairs > 300);
  BOOST_TEST(sum.moves > 30);
  BOOST_TEST(sum.changes > 20);
  BOOST_TEST(sum.coordinators > 100);
  BOOST_TEST(sum.calls_lost > 200u);
  BOOST_TEST(sum.stale_refused > 10u);
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
