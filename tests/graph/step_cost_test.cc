#include "graph/step_cost.h"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace chainpump::graph {
namespace {

constexpr StepCost::Coefficients kTruth{.overhead_s = 3e-4, .token_s = 8e-6, .attended_s = 2.6e-10};

double cost_s(const StepCost::Coefficients& c, const StepWork& work) {
  return c.overhead_s + c.token_s * static_cast<double>(work.tokens) + c.attended_s * work.attended;
}

Duration nanoseconds_of(double seconds) {
  return Duration(static_cast<int64_t>(std::llround(seconds * 1e9)));
}

// A scheduler's steps: some decodes, mostly with a chunk of a prompt.
StepWork any_work(std::mt19937& random) {
  StepWork work;
  const uint32_t num_decodes = random() % 17;
  for (uint32_t i = 0; i < num_decodes; ++i) work.add(1, random() % 8192);
  if (num_decodes == 0 || random() % 3 != 0) work.add(1 + random() % 2048, random() % 32768);
  return work;
}

double off_by(double value, double truth) { return std::abs(value / truth - 1); }

void check_close(const StepCost& cost, const StepCost::Coefficients& truth, double tolerance) {
  BOOST_TEST(off_by(cost.coefficients().overhead_s, truth.overhead_s) < tolerance);
  BOOST_TEST(off_by(cost.coefficients().token_s, truth.token_s) < tolerance);
  BOOST_TEST(off_by(cost.coefficients().attended_s, truth.attended_s) < tolerance);
}

BOOST_AUTO_TEST_SUITE(step_cost)

BOOST_AUTO_TEST_CASE(work_adds_up_over_slices) {
  StepWork work;
  work.add(1, 100);
  work.add(10, 0);
  work.add(4, 6);
  BOOST_TEST(work.tokens == 15);
  BOOST_TEST(work.attended == 100.5 + 50 + 32);
}

BOOST_AUTO_TEST_CASE(predicts_from_the_prior_before_anything_was_measured) {
  StepWork work;
  work.add(512, 1024);
  BOOST_TEST(StepCost(kTruth).predict_s(work) == cost_s(kTruth, work));
  BOOST_TEST(StepCost({}).predict_s(work) == 0);
}

BOOST_AUTO_TEST_CASE(a_step_that_was_not_measured_is_ignored) {
  StepCost cost(kTruth);
  StepWork work;
  work.add(512, 1024);
  cost.observe(work, Duration(0));
  cost.observe(work, Duration(-5));
  BOOST_TEST(cost.predict_s(work) == cost_s(kTruth, work));
}

// 5 % noise; one step in fifty is an outlier of up to ten times its cost.
BOOST_AUTO_TEST_CASE(finds_the_coefficients_whatever_the_prior) {
  const std::vector<StepCost::Coefficients> priors = {
      {},
      kTruth,
      {.overhead_s = 3e-3, .token_s = 8e-7, .attended_s = 2.6e-9},
      {.overhead_s = 3e-6, .token_s = 8e-5, .attended_s = 2.6e-12},
      {.overhead_s = 3e-2, .token_s = 8e-4, .attended_s = 2.6e-8},
  };
  double worst = 0;
  for (const StepCost::Coefficients& prior : priors) {
    for (uint32_t seed = 1; seed <= 10; ++seed) {
      std::mt19937 random(seed);
      std::normal_distribution<double> noise(1, 0.05);
      StepCost cost(prior);
      // Over the last steps, not only at the very last: it must also stay there.
      for (int i = 0; i < 8000; ++i) {
        const StepWork work = any_work(random);
        double factor = noise(random);
        if (random() % 50 == 0) factor *= 1 + random() % 10;
        cost.observe(work, nanoseconds_of(cost_s(kTruth, work) * factor));
        if (i < 4000 || i % 100 != 0) continue;
        BOOST_TEST_CONTEXT("seed " << seed << ", step " << i) check_close(cost, kTruth, 0.02);
        worst = std::max({worst, off_by(cost.coefficients().overhead_s, kTruth.overhead_s),
                          off_by(cost.coefficients().token_s, kTruth.token_s),
                          off_by(cost.coefficients().attended_s, kTruth.attended_s)});
      }
    }
  }
  BOOST_TEST_MESSAGE("worst coefficient off by " << worst);
}

BOOST_AUTO_TEST_CASE(predicts_within_a_few_percent_after_a_handful_of_steps) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    std::normal_distribution<double> noise(1, 0.05);
    StepCost cost({.overhead_s = 1e-4, .token_s = 2.4e-5, .attended_s = 1e-10});
    for (int i = 0; i < 40; ++i) {
      const StepWork work = any_work(random);
      cost.observe(work, nanoseconds_of(cost_s(kTruth, work) * noise(random)));
    }
    for (int i = 0; i < 20; ++i) {
      const StepWork work = any_work(random);
      BOOST_TEST(off_by(cost.predict_s(work), cost_s(kTruth, work)) < 0.10);
    }
  }
}

BOOST_AUTO_TEST_CASE(follows_a_machine_that_becomes_slower) {
  std::mt19937 random(5);
  StepCost cost(kTruth);
  const StepCost::Coefficients slower{.overhead_s = 9e-4, .token_s = 1.6e-5, .attended_s = 5.2e-10};
  for (int i = 0; i < 1000; ++i) {
    const StepWork work = any_work(random);
    cost.observe(work, nanoseconds_of(cost_s(kTruth, work)));
  }
  for (int i = 0; i < 12'000; ++i) {
    const StepWork work = any_work(random);
    cost.observe(work, nanoseconds_of(cost_s(slower, work)));
    if (i == 4000) BOOST_TEST(off_by(cost.predict_s(work), cost_s(slower, work)) < 0.20);
  }
  check_close(cost, slower, 0.02);
}

// Hours of decoding alone cannot part the overhead from the tokens; they must not make up an answer
// that is far off for the next prompt either.
BOOST_AUTO_TEST_CASE(keeps_what_the_steps_say_nothing_about) {
  std::mt19937 random(7);
  std::normal_distribution<double> noise(1, 0.05);
  StepCost cost(kTruth);
  for (int i = 0; i < 1000; ++i) {
    const StepWork work = any_work(random);
    cost.observe(work, nanoseconds_of(cost_s(kTruth, work) * noise(random)));
  }
  for (int i = 0; i < 200'000; ++i) {
    StepWork decode;
    for (int s = 0; s < 16; ++s) decode.add(1, 4000);
    cost.observe(decode, nanoseconds_of(cost_s(kTruth, decode) * noise(random)));
  }
  StepWork prompt;
  prompt.add(2048, 16384);
  BOOST_TEST(off_by(cost.predict_s(prompt), cost_s(kTruth, prompt)) < 0.15);
}

BOOST_AUTO_TEST_CASE(no_coefficient_is_ever_negative) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    StepCost cost({.overhead_s = 1e-3, .token_s = 1e-6, .attended_s = 1e-9});
    for (int i = 0; i < 500; ++i) {
      const StepWork work = any_work(random);
      cost.observe(work, Duration(1 + random() % 50'000'000));  // no law at all
      BOOST_TEST_REQUIRE(cost.coefficients().overhead_s >= 0);
      BOOST_TEST_REQUIRE(cost.coefficients().token_s >= 0);
      BOOST_TEST_REQUIRE(cost.coefficients().attended_s >= 0);
      BOOST_TEST_REQUIRE(std::isfinite(cost.predict_s(work)));
    }
  }
}

BOOST_AUTO_TEST_CASE(a_coefficient_held_at_zero_leaves_its_share_to_the_others) {
  std::mt19937 random(3);
  const StepCost::Coefficients truth{.overhead_s = 0, .token_s = 8e-6, .attended_s = 2.6e-10};
  StepCost cost({.overhead_s = 1e-3, .token_s = 1e-6, .attended_s = 1e-9});
  std::normal_distribution<double> noise(1, 0.05);
  for (int i = 0; i < 3000; ++i) {
    const StepWork work = any_work(random);
    cost.observe(work, nanoseconds_of(cost_s(truth, work) * noise(random)));
  }
  BOOST_TEST(cost.coefficients().overhead_s < 2e-6);
  BOOST_TEST(off_by(cost.coefficients().token_s, truth.token_s) < 0.02);
  BOOST_TEST(off_by(cost.coefficients().attended_s, truth.attended_s) < 0.02);
}

// A cost that falls below what any overhead >= 0 allows: the tokens' cost alone must then come as
// near as it can, which is less than what it would be beside a negative overhead.
BOOST_AUTO_TEST_CASE(what_a_negative_coefficient_would_explain_the_others_must) {
  std::mt19937 random(9);
  StepCost cost({.overhead_s = 1e-4, .token_s = 1e-6, .attended_s = 0});
  double sum = 0;
  for (int i = 0; i < 4000; ++i) {
    StepWork work;
    work.add(500 + random() % 1500, 0);
    const double spent_s = 8e-6 * static_cast<double>(work.tokens) - 1e-3;
    cost.observe(work, nanoseconds_of(spent_s));
    if (i >= 3000) sum += cost.predict_s(work) / spent_s - 1;
  }
  BOOST_TEST(cost.coefficients().overhead_s == 0);
  BOOST_TEST(std::abs(sum / 1000) < 0.05);
}

// Too short ones too: they are not damped by being small beside what was predicted.
BOOST_AUTO_TEST_CASE(outliers_move_predictions_by_less_than_a_percent) {
  std::mt19937 random(13);
  std::normal_distribution<double> noise(1, 0.05);
  StepCost cost(kTruth);
  double sum = 0;
  for (int i = 0; i < 8000; ++i) {
    const StepWork work = any_work(random);
    double factor = noise(random);
    if (random() % 25 == 0) factor *= random() % 2 == 0 ? 10 : 0.1;
    cost.observe(work, nanoseconds_of(cost_s(kTruth, work) * factor));
    if (i >= 4000) sum += cost.predict_s(work) / cost_s(kTruth, work) - 1;
  }
  BOOST_TEST(std::abs(sum / 4000) < 0.01);
}

// Against trying every size.
BOOST_AUTO_TEST_CASE(tokens_within_is_the_largest_chunk_that_fits) {
  const std::vector<StepCost::Coefficients> costs = {
      kTruth,
      {.overhead_s = 0, .token_s = 1e-5, .attended_s = 0},
      {.overhead_s = 1e-3, .token_s = 0, .attended_s = 1e-9},
  };
  for (const StepCost::Coefficients& coefficients : costs) {
    const StepCost cost(coefficients);
    for (const int64_t prefix : {int64_t{0}, int64_t{100}, int64_t{30'000}}) {
      for (const double budget_s : {-1.0, 0.0, 1e-4, 1.7e-3, 5.3e-3, 0.04}) {
        StepWork base;
        base.add(1, 500);
        base.add(1, 900);
        int32_t expected = 1;
        for (int32_t c = 1; c <= 4096; ++c) {
          StepWork work = base;
          work.add(c, prefix);
          if (cost.predict_s(work) <= budget_s) expected = c;
        }
        const int32_t found = cost.tokens_within(base, prefix, budget_s, 4096);
        BOOST_TEST(std::abs(found - expected) <= (found == expected ? 0 : 1));
        StepWork work = base;
        work.add(found, prefix);
        BOOST_TEST((found == 1 || cost.predict_s(work) <= budget_s * (1 + 1e-12)));
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(tokens_within_keeps_its_bounds) {
  BOOST_TEST(StepCost({}).tokens_within({}, 0, 1.0, 77) == 77);
  BOOST_TEST(StepCost({}).tokens_within({}, 0, 0.0, 77) == 1);
  BOOST_TEST(StepCost(kTruth).tokens_within({}, 0, 1e9, 1) == 1);
  BOOST_TEST(StepCost(kTruth).tokens_within({}, 0, 1e9, 2048) == 2048);
  BOOST_TEST(StepCost(kTruth).tokens_within({}, 0, std::nan(""), 2048) == 1);
  constexpr double kUnbounded = std::numeric_limits<double>::infinity();
  BOOST_TEST(StepCost(kTruth).tokens_within({}, 0, kUnbounded, 2048) == 2048);
  BOOST_TEST(StepCost({}).tokens_within({}, 0, kUnbounded, 2048) == 2048);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::graph
