#include "models/sampling/weighted_order.h"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "models/sampling/descending.h"

namespace chainpump::models {
namespace {

using kernels::cpu::available_isas;
using kernels::cpu::Isa;

struct Shape {
  const char* name;
  size_t count;
  float (*value)(std::mt19937& random, size_t i);  // made at most 0 by subtracting the largest
};

float normal(std::mt19937& random, float spread) {
  return std::normal_distribution<float>(0.0f, spread)(random);
}

const Shape kShapes[] = {
    {"one", 1, [](std::mt19937&, size_t) { return 0.0f; }},
    {"two", 2, [](std::mt19937&, size_t i) { return static_cast<float>(i); }},
    {"flat", 49'152, [](std::mt19937& random, size_t) { return normal(random, 1.5f); }},
    {"wide", 20'000, [](std::mt19937& random, size_t) { return normal(random, 30.0f); }},
    {"nearly equal", 20'000, [](std::mt19937& random, size_t) { return normal(random, 1e-6f); }},
    {"equal", 5'000, [](std::mt19937&, size_t) { return 3.0f; }},
    {"few values, many ties", 20'000,
     [](std::mt19937& random, size_t) { return static_cast<float>(random() % 9) * 0.25f; }},
    {"one above a far floor", 20'000,
     [](std::mt19937& random, size_t i) { return i == 777 ? 40.0f : normal(random, 1.0f); }},
    {"minus infinity among them", 3'000,
     [](std::mt19937& random, size_t i) {
       return i % 3 == 0 ? -std::numeric_limits<float>::infinity() : normal(random, 2.0f);
     }},
};

std::vector<float> values_of(const Shape& shape) {
  std::mt19937 random(11);
  std::vector<float> values(shape.count);
  for (size_t i = 0; i < shape.count; ++i) values[i] = shape.value(random, i);
  const float largest = *std::max_element(values.begin(), values.end());
  for (float& value : values) value -= largest;
  return values;
}

std::vector<RankedToken> sorted(const std::vector<float>& values) {
  std::vector<RankedToken> order;
  for (size_t i = 0; i < values.size(); ++i) order.push_back({values[i], static_cast<TokenId>(i)});
  std::stable_sort(order.begin(), order.end(),
                   [](const RankedToken& a, const RankedToken& b) { return a.value > b.value; });
  return order;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(weighted_order)

BOOST_AUTO_TEST_CASE(reaches_what_a_full_sort_reaches) {
  for (const Shape& shape : kShapes) {
    const std::vector<float> values = values_of(shape);
    const std::vector<RankedToken> order = sorted(values);
    double mass = 0;
    for (const RankedToken& token : order)
      mass += static_cast<double>(kernels::cpu::exp_f32(token.value));
    const WeightedOrder tested(Isa::reference, values);
    BOOST_CHECK_CLOSE(tested.mass(), mass, 1e-9);
    const double slack = 1e-12 * mass;  // two orders of summation
    size_t at = 0;
    double sum = static_cast<double>(kernels::cpu::exp_f32(order[0].value));
    for (int part = 1; part <= 400; ++part) {
      const double target = tested.mass() * part / 400;
      for (; sum < target - slack && at + 1 < order.size(); ++at)
        sum += static_cast<double>(kernels::cpu::exp_f32(order[at + 1].value));
      const WeightedOrder::Reach got = tested.reach(target);
      // Within the slack the next token may be the one.
      const bool is_next = at + 1 < order.size() && got.token == order[at + 1].token;
      BOOST_TEST((got.token == order[at].token || (is_next && sum < target + slack) || part == 400),
                 shape.name << ", part " << part << ": token " << got.token << ", wanted "
                            << order[at].token);
      BOOST_TEST(got.weight >= target - slack);
      if (!is_next) BOOST_CHECK_CLOSE(got.weight, sum, 1e-9);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_tiny_target_is_the_first_of_the_order_and_ties_go_by_id) {
  const std::vector<float> values = {-1.0f, 0.0f, -5.0f, 0.0f, 0.0f};
  const WeightedOrder tested(Isa::reference, values);
  BOOST_TEST(tested.reach(1e-300).token == 1);
  BOOST_TEST(tested.reach(1.5).token == 3);
  BOOST_TEST(tested.reach(2.5).token == 4);
  BOOST_TEST(tested.reach(3.1).token == 0);
  BOOST_TEST(tested.reach(tested.mass()).token == 2);
  BOOST_TEST(tested.reach(tested.mass() * 1.0001).token == 2);  // rounding kept the sum below
}

BOOST_AUTO_TEST_CASE(instruction_sets_agree_by_bits) {
  for (const Shape& shape : kShapes) {
    const std::vector<float> values = values_of(shape);
    const WeightedOrder reference(Isa::reference, values);
    for (const Isa isa : available_isas()) {
      const WeightedOrder tested(isa, values);
      BOOST_TEST(tested.mass() == reference.mass());
      for (int part = 1; part <= 20; ++part) {
        const WeightedOrder::Reach want = reference.reach(reference.mass() * part / 20);
        const WeightedOrder::Reach got = tested.reach(tested.mass() * part / 20);
        BOOST_TEST(got.token == want.token, shape.name);
        BOOST_TEST(got.weight == want.weight, shape.name);
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(a_nan_makes_the_mass_nan) {
  const std::vector<float> values = {0.0f, std::numeric_limits<float>::quiet_NaN()};
  for (const Isa isa : available_isas()) BOOST_TEST(std::isnan(WeightedOrder(isa, values).mass()));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::models
