// Ranks whose steps take longer than they did: what each counts of its own, and who is told of as
// slow.
#include "graph/slow_watch.h"

#include <boost/test/unit_test.hpp>
#include <utility>

namespace chainpump::graph {
namespace {

using namespace std::chrono_literals;

StepWork decode(int64_t prefix) {
  StepWork work;
  work.add(1, prefix);
  return work;
}

/// Steps of 10 ms, of which it has learnt enough.
StepAccount calm_account() {
  StepAccount account;
  for (int i = 0; i < 100; ++i) account.add(decode(100 + i), 10ms);
  return account;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(step_account)

BOOST_AUTO_TEST_CASE(its_first_steps_are_learnt_and_not_counted) {
  StepAccount account;
  for (int i = 0; i < 32; ++i) account.add(decode(100), i == 3 ? 5s : 10ms);  // one is a stall
  BOOST_TEST((account.totals() == StepTotals{}));
  account.add(decode(100), 13ms);
  BOOST_TEST(account.totals().steps == 1u);
  BOOST_TEST(account.totals().behind == 0u);
  BOOST_TEST(to_ms(account.totals().expected) == 10.0, boost::test_tools::tolerance(0.3));
}

BOOST_AUTO_TEST_CASE(longer_steps_are_counted_by_how_much) {
  const struct {
    Duration spent;
    uint64_t behind, slow;
  } kTable[] = {{10ms, 0, 0}, {25ms, 0, 0}, {40ms, 1, 0}, {70ms, 1, 0}, {100ms, 1, 1}, {9s, 1, 1}};
  for (const auto& [spent, behind, slow] : kTable) {
    StepAccount account = calm_account();
    const StepTotals before = account.totals();
    account.add(decode(120), spent);
    BOOST_TEST(account.totals().steps == before.steps + 1);
    BOOST_TEST(account.totals().behind == behind, to_ms(spent));
    BOOST_TEST(account.totals().slow == slow, to_ms(spent));
    BOOST_TEST((account.totals().measured - before.measured == spent));
  }
}

BOOST_AUTO_TEST_CASE(slowness_is_never_learnt) {
  StepAccount account = calm_account();
  for (int i = 0; i < 20000; ++i) account.add(decode(150), 100ms);
  BOOST_TEST(account.totals().slow == 20000u);
  account.add(decode(150), 10ms);
  BOOST_TEST(account.totals().slow == 20000u);
}

BOOST_AUTO_TEST_CASE(a_machine_that_becomes_a_little_slower_is_learnt) {
  StepAccount account = calm_account();
  for (const Duration spent : {20ms, 40ms, 80ms, 160ms})
    for (int i = 0; i < 300; ++i) account.add(decode(150), spent);
  BOOST_TEST(account.totals().behind == 0u);
}

BOOST_AUTO_TEST_CASE(each_kind_of_step_has_a_time_of_its_own) {
  StepAccount account = calm_account();
  StepWork prompt, later;
  prompt.add(256, 0);
  later.add(256, 4000);
  for (const auto& [work, spent] : {std::pair(prompt, Duration(800ms)), {later, 3s}}) {
    const StepTotals before = account.totals();
    for (int i = 0; i < 32; ++i) account.add(work, spent);
    BOOST_TEST((account.totals() == before));
    account.add(work, spent);
    account.add(decode(150), 10ms);
    BOOST_TEST(account.totals().steps == before.steps + 2);
  }
  BOOST_TEST(account.totals().behind == 0u);
  account.add(decode(150), 800ms);
  account.add(prompt, 10s);
  BOOST_TEST(account.totals().slow == 2u);
}

BOOST_AUTO_TEST_CASE(what_takes_no_time_to_speak_of_is_not_slow) {
  StepAccount account;
  for (int i = 0; i < 100; ++i) account.add(decode(100), 50us);
  account.add(decode(100), 1900us);
  BOOST_TEST(account.totals().behind == 0u);
  account.add(decode(100), 3ms);
  BOOST_TEST(account.totals().slow == 1u);
  const StepTotals before = account.totals();
  account.add({}, 3ms);           // nothing was computed
  account.add(decode(100), 0ms);  // nor measured
  BOOST_TEST((account.totals() == before));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(slow_watch)

namespace {

constexpr ProcessId kA(0), kB(1), kC(2);

/// Ranks that make steps of 10 ms by their fit, at most as many as fit into the time, and are asked
/// ten times a second.
struct World {
  SlowWatch watch;
  TimePoint now{1h};
  std::vector<std::vector<ProcessId>> lanes = {{kA, kB, kC}};
  std::map<ProcessId, StepTotals> totals;
  std::map<ProcessId, double> times;     // as long; not there: as ever
  std::map<ProcessId, Duration> stalls;  // in its next step
  double steps_per_s = 50;
  double owed = 0;
  std::vector<std::string> told;

  void step(ProcessId process) {
    const double factor = times.contains(process) ? times[process] : 1;
    const Duration spent = std::chrono::duration_cast<Duration>(10ms * factor) +
                           std::exchange(stalls[process], Duration(0));
    StepTotals& t = totals[process];
    ++t.steps;
    t.behind += spent > 30ms;
    t.slow += spent > 80ms;
    t.measured += spent;
    t.expected += 10ms;
  }
  void run(Duration time) {
    for (const TimePoint end = now + time; now < end; now = now + 100ms) {
      double slowest = 1;
      for (const auto& [process, factor] : times) slowest = std::max(slowest, factor);
      for (owed += std::min(steps_per_s, 100 / slowest) / 10; owed >= 1; owed -= 1)
        for (const ProcessId process : {kA, kB, kC}) step(process);
      for (const ProcessId process : {kA, kB, kC}) watch.on_answer(process, totals[process], now);
      for (const SlowWatch::Change& change : watch.look(lanes))
        told.push_back(fmt::format("{}{}", change.is_slow ? "slow " : "fine ", change.process));
    }
  }
  std::string take() {
    std::string all;
    for (const std::string& each : std::exchange(told, {})) all += (all.empty() ? "" : ", ") + each;
    return all;
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(one_of_a_lane_becomes_slow_and_is_told_once) {
  for (const double factor : {10.0, 30.0}) {
    World world;
    world.run(10s);
    BOOST_TEST(world.take() == "");
    world.times[kB] = factor;
    world.run(3s);
    BOOST_TEST(world.take() == "");
    world.run(1500ms);
    BOOST_TEST(world.take() == "slow 1");
    BOOST_TEST(world.watch.slow_times(kB).value_or(0) > 5);
    world.run(60s);
    BOOST_TEST(world.take() == "");
    BOOST_TEST(world.watch.slow_times(kB).value_or(0) == factor,
               boost::test_tools::tolerance(0.01));
    BOOST_TEST(!world.watch.slow_times(kA).has_value());
    world.times.clear();
    world.run(4500ms);
    BOOST_TEST(world.take() == "fine 1");
    BOOST_TEST(!world.watch.slow_times(kB).has_value());
  }
}

BOOST_AUTO_TEST_CASE(a_busy_machine_is_nobodys_fault) {
  World world;
  world.run(10s);
  for (const ProcessId process : {kA, kB, kC}) world.times[process] = 12;
  world.run(30s);
  BOOST_TEST(world.take() == "");
  for (const ProcessId process : {kA, kC}) world.times[process] = 4;  // behind, too
  world.run(30s);
  BOOST_TEST(world.take() == "");
  world.times.erase(kC);
  world.run(6s);
  BOOST_TEST(world.take() == "slow 1");
  world.times[kC] = 4;  // it stays so
  world.run(30s);
  BOOST_TEST(world.take() == "");
}

BOOST_AUTO_TEST_CASE(not_ten_times_as_slow) {
  World world;
  world.run(10s);
  world.times[kB] = 7;
  world.run(60s);
  BOOST_TEST(world.take() == "");
}

BOOST_AUTO_TEST_CASE(a_stall_is_one_step_however_long) {
  World world;
  world.steps_per_s = 3;
  world.run(10s);
  for (int i = 0; i < 10; ++i) {
    world.stalls[kB] = 1s;
    world.run(1s);
  }
  BOOST_TEST(world.take() == "");
}

BOOST_AUTO_TEST_CASE(few_steps_are_waited_for_to_a_limit) {
  World world;
  world.run(10s);
  world.times[kB] = 50;
  world.steps_per_s = 0.5;
  world.run(14s);
  BOOST_TEST(world.take() == "");
  world.run(4s);
  BOOST_TEST(world.take() == "slow 1");
  world.steps_per_s = 0.1;  // not eight in a minute: nothing is known, and it is as it was
  world.run(300s);
  BOOST_TEST(world.take() == "");
  BOOST_TEST(world.watch.slow_times(kB).has_value());
  world.times.clear();
  world.steps_per_s = 50;
  world.run(5s);
  BOOST_TEST(world.take() == "fine 1");
}

BOOST_AUTO_TEST_CASE(alone_in_its_lane_or_new_nobody_is_slow) {
  World world;
  world.lanes = {{kA}, {kB, kC}};
  world.run(10s);
  world.times[kA] = 20;
  world.run(20s);
  BOOST_TEST(world.take() == "");
  world.lanes = {{kA}, {kA, kC}};  // of its lanes one is enough
  world.run(1s);
  BOOST_TEST(world.take() == "slow 0");
  world.watch.forget(kA);
  BOOST_TEST(!world.watch.slow_times(kA).has_value());
  world.times.clear();
  world.totals[kA] = {};  // another process
  world.run(20s);
  BOOST_TEST(world.take() == "");
  world.totals[kB] = {};  // though nobody said so
  world.run(20s);
  BOOST_TEST(world.take() == "");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
