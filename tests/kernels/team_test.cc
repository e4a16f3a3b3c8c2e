// Teams: shares, barriers, many runs, sleeping members; and the choice of an instruction set.
#include "kernels/cpu/team.h"

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <numeric>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/measure.h"
#include "tests/fakes/no_threads.h"

namespace chainpump::kernels::cpu {
namespace {

BOOST_AUTO_TEST_CASE(shares_cover_everything_once) {
  for (const int size : {1, 2, 3, 7}) {
    Team team = *Team::create({.num_threads = size, .spin = false});
    BOOST_CHECK_EQUAL(team.size(), size);
    for (const int64_t count : {0, 1, 5, 16, 100, 1000}) {
      for (const int64_t granule : {1, 16}) {
        std::vector<Range> ranges(static_cast<size_t>(size));
        team.run([&](TeamMember& member) {
          ranges[static_cast<size_t>(member.index())] = share_of(member, count, granule);
        });
        int64_t at = 0;
        for (const Range& range : ranges) {
          BOOST_CHECK_EQUAL(range.begin, at);
          BOOST_CHECK(range.end == count || range.end % granule == 0);
          at = range.end;
        }
        BOOST_CHECK_EQUAL(at, count);
      }
    }
  }
}

// Each step reads what all others wrote in the step before.
BOOST_AUTO_TEST_CASE(barriers_make_writes_visible) {
  for (const bool spin : {true, false}) {
    for (const int size : {1, 2, 3, 4, 7, 8}) {
      Team team = *Team::create({.num_threads = size, .spin = spin});
      std::vector<int64_t> sums(static_cast<size_t>(size), 1);
      const int steps = spin && size < 4 ? 500 : 50;  // more sleep than run
      for (int run = 0; run < 20; ++run) {
        std::fill(sums.begin(), sums.end(), 1);
        team.run([&](TeamMember& member) {
          for (int step = 0; step < steps; ++step) {
            const int64_t total = std::accumulate(sums.begin(), sums.end(), int64_t{0});
            member.barrier();
            sums[static_cast<size_t>(member.index())] = total % 1000003;
            member.barrier();
          }
        });
        for (const int64_t sum : sums) BOOST_REQUIRE_EQUAL(sum, sums[0]);
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(many_short_runs_all_complete) {
  Team team = *Team::create({.num_threads = 2, .spin = true});
  std::atomic<int> count{0};
  for (int run = 0; run < 5000; ++run) team.run([&](TeamMember&) { ++count; });
  BOOST_CHECK_EQUAL(count.load(), 10000);
}

BOOST_AUTO_TEST_CASE(an_unused_team_ends) {
  const Team team = *Team::create({.num_threads = 3});
  BOOST_CHECK_EQUAL(team.size(), 3);
}

BOOST_AUTO_TEST_CASE(every_rate_of_the_machine_is_measured) {
  for (const Isa isa : available_isas()) {
    Team team = *Team::create({.num_threads = 2, .spin = false});
    const MachineRates rates = measure_machine(isa, team);
    BOOST_CHECK_EQUAL(rates.num_threads, 2);
    BOOST_CHECK_GT(rates.read_bytes_per_second, 1e7);
    BOOST_CHECK_GT(rates.int8_ops_per_second, 1e7);
    BOOST_CHECK_GT(rates.f32_ops_per_second, 1e7);
    BOOST_CHECK_GT(rates.bf16_ops_per_second, 1e7);
  }
}

BOOST_AUTO_TEST_CASE(isa_names) {
  BOOST_CHECK(available_isas().front() == Isa::reference);
  BOOST_CHECK(*choose_isa("reference") == Isa::reference);
  BOOST_CHECK(*choose_isa("") == available_isas().back());
  for (const Isa isa : available_isas()) BOOST_CHECK(*choose_isa(to_string(isa)) == isa);
  BOOST_CHECK(choose_isa("sse9").error().code == ErrorCode::invalid_argument);
}

}  // namespace
BOOST_AUTO_TEST_CASE(a_team_that_cannot_be_whole_is_an_error) {
  for (const int room : {0, 1}) {  // for the second member, and for no third
    const fakes::NoThreads refused(room);
    const Result<Team> team = Team::create({.num_threads = 3, .cores = {}, .spin = false});
    BOOST_REQUIRE(!team.ok());
    BOOST_TEST((team.error().code == ErrorCode::no_room));
  }
  BOOST_TEST(Team::create({.num_threads = 3, .cores = {}, .spin = false}).ok());
}

}  // namespace chainpump::kernels::cpu
