#include "graph/failure_detector.h"

#include <boost/test/unit_test.hpp>
#include <random>

namespace chainpump::graph {
namespace {

using std::chrono::milliseconds;

constexpr ProcessId kRank{3};

/// Time goes on in steps of a millisecond; each stall is a span in which somebody does nothing.
struct World {
  struct Stall {
    int from;
    int until;
    bool covers(int t) const { return from <= t && t < until; }
  };
  FailureDetector detector{FailureDetectorLimits{}};
  std::vector<Stall> rank;     // its computing thread
  std::vector<Stall> answers;  // the thread that answers for it
  std::vector<Stall> watcher;  // the detector's own process

  static bool stalled(const std::vector<Stall>& stalls, int t) {
    return std::any_of(stalls.begin(), stalls.end(), [&](const Stall& s) { return s.covers(t); });
  }

  /// When it was told hung, in ms, or nothing.
  std::optional<int> run(int until) {
    uint64_t count = 0;
    int looks_at = 0;
    std::optional<int> question;
    std::optional<uint64_t> answer;
    detector.watch(kRank, TimePoint{});
    for (int t = 0; t < until; ++t) {
      const TimePoint now{milliseconds(t)};
      if (!stalled(rank, t) && t >= looks_at) {  // an idle one looks so seldom
        ++count;
        looks_at = t + 200;
      }
      if (question && !stalled(answers, t)) {
        answer = count;
        question.reset();
      }
      if (stalled(watcher, t)) continue;
      if (answer) detector.on_answer(kRank, *std::exchange(answer, std::nullopt), now);
      if (!detector.next_deadline() || now < *detector.next_deadline()) continue;
      const FailureDetector::Looked looked = detector.on_time(now);
      if (!looked.hung.empty()) return t;
      if (!looked.ask.empty()) {
        BOOST_REQUIRE(!question);  // one at a time
        question = t;
      }
    }
    return std::nullopt;
  }
};

BOOST_AUTO_TEST_SUITE(failure_detector)

BOOST_AUTO_TEST_CASE(a_hang_is_told_within_a_second_whichever_kind) {
  for (int from = 0; from < 1500; from += 7) {
    World stuck;
    stuck.rank.push_back({from, 1 << 20});
    World stopped;
    stopped.rank.push_back({from, 1 << 20});
    stopped.answers.push_back({from, 1 << 20});
    World mute;
    mute.answers.push_back({from, 1 << 20});
    for (World* world : {&stuck, &stopped, &mute}) {
      const auto told = world->run(10000);
      BOOST_TEST_REQUIRE(told.has_value());
      BOOST_TEST(*told - from > 400);
      BOOST_TEST(*told - from <= 1000);
      BOOST_TEST(!world->detector.next_deadline().has_value());  // told once
    }
  }
}

BOOST_AUTO_TEST_CASE(it_says_whether_the_process_answers) {
  for (const bool answers : {true, false}) {
    FailureDetector detector{FailureDetectorLimits{}};
    detector.watch(kRank, TimePoint{});
    TimePoint now{};
    for (int i = 0; i < 100; ++i) {
      now = *detector.next_deadline();
      const FailureDetector::Looked looked = detector.on_time(now);
      if (!looked.hung.empty()) {
        BOOST_TEST(looked.hung[0].answers == answers);
        BOOST_TEST((looked.hung[0].silent_for >= milliseconds(700)));
        return;
      }
      if (answers && !looked.ask.empty()) detector.on_answer(kRank, 7, now);
    }
    BOOST_TEST(false, "it was never told");
  }
}

// Whoever stalls for 200 ms, how often, and all at once.
BOOST_AUTO_TEST_CASE(stalls_of_200_ms_are_no_hang) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    std::mt19937 random(seed);
    World world;
    for (auto* stalls : {&world.rank, &world.answers, &world.watcher})
      for (int t = 0; t < 20000;) {
        t += 1 + static_cast<int>(random() % 900);
        const int length = 1 + static_cast<int>(random() % 200);
        stalls->push_back({t, t + length});
        t += length;
      }
    BOOST_TEST(!world.run(20000).has_value(), "seed " << seed);
  }
}

// Ctrl-Z, or a machine that was suspended: the detector has not looked.
BOOST_AUTO_TEST_CASE(a_detector_that_was_stopped_itself_blames_nobody) {
  for (const int length : {300, 700, 1000, 5000, 60000}) {
    World world;
    for (auto* stalls : {&world.rank, &world.answers, &world.watcher})
      stalls->push_back({1000, 1000 + length});
    BOOST_TEST(!world.run(length + 5000).has_value(), "stopped for " << length << " ms");
  }
}

BOOST_AUTO_TEST_CASE(threads_that_share_a_core_have_longer) {
  const Duration usual = FailureDetectorLimits{}.hang_max;
  struct Case {
    std::vector<NodePlan> nodes;
    std::vector<std::pair<const char*, int32_t>> stages;  // home and threads
    int times;
  };
  const Case kTable[] = {
      {{{"", 64}}, {{"", 1}}, 1},
      {{{"", 2}}, {{"", 3}}, 1},
      {{{"", 2}}, {{"", 2}, {"", 2}}, 1},
      {{{"", 2}}, {{"", 30}, {"", 30}}, 15},
      {{{"a", 2}, {"b", 64}}, {{"a", 2}, {"b", 64}}, 1},  // each has its own
      {{{"a", 2}, {"b", 1}}, {{"a", 2}, {"b", 4}, {"b", 4}}, 4},
      {{{"a", 1}, {"b", 64}}, {{"b", 64}}, 1},
      {{}, {{"", 60}}, 1},  // nothing is known
  };
  for (const Case& c : kTable) {
    Plan plan;
    plan.nodes = c.nodes;
    for (const auto& [home, num_threads] : c.stages) {
      StagePlan& stage = plan.stages.emplace_back();
      stage.devices.front().node = home;
      stage.num_threads = num_threads;
    }
    BOOST_TEST((failure_limits(plan).hang_max == c.times * usual));
  }
}

BOOST_AUTO_TEST_CASE(who_is_forgotten_is_not_asked) {
  FailureDetector detector{FailureDetectorLimits{}};
  detector.watch(kRank, TimePoint{});
  detector.watch(ProcessId(4), TimePoint{});
  detector.forget(kRank);
  const FailureDetector::Looked looked = detector.on_time(*detector.next_deadline());
  BOOST_TEST_REQUIRE(looked.ask.size() == 1u);
  BOOST_TEST((looked.ask[0] == ProcessId(4)));
  detector.on_answer(kRank, 1, TimePoint{});
  detector.forget(ProcessId(4));
  BOOST_TEST(!detector.next_deadline().has_value());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::graph
