// Elementary functions against libm in double, with bounds in units of the last place; vector sums
// against the reference by bits.
#include "kernels/cpu/math.h"

#include "kernels/cpu/dispatch.h"
#include "tests/kernels/kernel_fixture.h"

namespace chainpump::kernels::cpu {
namespace {

constexpr float kInfinity = INFINITY;

double ulps_f32(float got, double want) {
  const auto rounded = static_cast<float>(want);
  const double ulp = static_cast<double>(std::nextafter(std::abs(rounded), kInfinity)) -
                     static_cast<double>(std::abs(rounded));
  return std::abs(static_cast<double>(got) - want) / ulp;
}

double ulps_f64(double got, long double want) {
  const auto rounded = std::abs(static_cast<double>(want));
  const double ulp = std::nextafter(rounded, static_cast<double>(kInfinity)) - rounded;
  return static_cast<double>(std::abs(static_cast<long double>(got) - want)) / ulp;
}

BOOST_AUTO_TEST_CASE(exp_f32_is_within_two_ulps) {
  double worst = 0;
  for (float x = -103.9f; x < 88.7f; x += 0.00031f)
    worst = std::max(worst, ulps_f32(exp_f32(x), std::exp(static_cast<double>(x))));
  BOOST_TEST_MESSAGE("exp_f32: " << worst << " ulp");
  BOOST_CHECK_LE(worst, 2.0);
  BOOST_CHECK_EQUAL(exp_f32(0.0f), 1.0f);
  BOOST_CHECK_EQUAL(exp_f32(-104.1f), 0.0f);
  BOOST_CHECK_EQUAL(exp_f32(-kInfinity), 0.0f);
  BOOST_CHECK_EQUAL(exp_f32(88.9f), kInfinity);
  BOOST_CHECK_EQUAL(exp_f32(kInfinity), kInfinity);
  BOOST_CHECK(std::isnan(exp_f32(NAN)));
}

BOOST_AUTO_TEST_CASE(exp_f64_and_log_f64_are_accurate) {
  double worst_exp = 0;
  for (double x = -700; x < 709; x += 0.0173)
    worst_exp = std::max(worst_exp, ulps_f64(exp_f64(x), std::exp(static_cast<long double>(x))));
  BOOST_CHECK_LE(worst_exp, 2.0);
  double worst_log = 0;
  for (double x = 1e-300; x < 1e300; x *= 1.0173)
    worst_log = std::max(worst_log, ulps_f64(log_f64(x), std::log(static_cast<long double>(x))));
  for (double x = 0.5; x < 2.0; x += 0.000317)
    worst_log = std::max(worst_log, ulps_f64(log_f64(x), std::log(static_cast<long double>(x))));
  BOOST_TEST_MESSAGE("exp_f64: " << worst_exp << " ulp, log_f64: " << worst_log << " ulp");
  BOOST_CHECK_LE(worst_log, 2.0);
  BOOST_CHECK_EQUAL(exp_f64(0), 1.0);
  BOOST_CHECK_EQUAL(exp_f64(-800), 0.0);
  BOOST_CHECK(std::isinf(exp_f64(710)));
  BOOST_CHECK_EQUAL(log_f64(1), 0.0);
  BOOST_CHECK(std::isinf(log_f64(0)) && log_f64(0) < 0);
  BOOST_CHECK(std::isnan(log_f64(-1)));
  BOOST_CHECK(std::isnan(log_f64(NAN)));
  BOOST_CHECK_SMALL(log_f64(0x1.0p-1070) + 1070 * 0.6931471805599453, 1e-12);
}

BOOST_AUTO_TEST_CASE(sin_cos_is_correct_to_float_rounding) {
  double worst = 0;
  const auto check = [&](double angle) {
    const SinCos got = sin_cos(angle);
    worst =
        std::max({worst, ulps_f32(got.sin, std::sin(angle)), ulps_f32(got.cos, std::cos(angle))});
  };
  for (double angle = -50; angle < 50; angle += 0.00173) check(angle);
  for (double angle = 1; angle < 2147483647.0; angle *= 1.00037) check(angle), check(-angle);
  for (double angle = 0; angle < 150000; angle += 1) check(angle);
  BOOST_TEST_MESSAGE("sin_cos: " << worst << " ulp");
  BOOST_CHECK_LE(worst, 0.51);
  BOOST_CHECK_EQUAL(sin_cos(0).sin, 0.0f);
  BOOST_CHECK_EQUAL(sin_cos(0).cos, 1.0f);
}

BOOST_AUTO_TEST_CASE(argmax_takes_the_first_of_the_largest) {
  for (const Isa isa : available_isas()) {
    for (const size_t count : {size_t{1}, size_t{5}, size_t{16}, size_t{49}, size_t{1000}}) {
      auto values = testing::random_floats(count, static_cast<uint32_t>(count));
      const size_t at = count * 2 / 3;
      values[at] = 100.0f;
      if (at + 1 < count) values[count - 1] = 100.0f;
      BOOST_CHECK_EQUAL(argmax(isa, values), static_cast<TokenId>(at));
      if (at > 0) values[at - 1] = NAN;
      values[0] = at > 0 ? NAN : values[0];
      BOOST_CHECK_EQUAL(argmax(isa, values), static_cast<TokenId>(at));
    }
    const std::vector<float> low(20, -kInfinity);
    BOOST_CHECK_EQUAL(argmax(isa, low), 0);
    const std::vector<float> nothing(20, NAN);
    BOOST_CHECK_EQUAL(argmax(isa, nothing), 0);
  }
}

BOOST_AUTO_TEST_CASE(all_finite_sees_every_place) {
  const float largest = std::numeric_limits<float>::max();
  const float smallest = std::numeric_limits<float>::denorm_min();
  BOOST_TEST(all_finite({}));
  for (const size_t count : {1, 15, 64, 100, 128, 131}) {
    std::vector<float> values(count, -largest);
    for (size_t i = 0; i < count; i += 3) values[i] = smallest;
    BOOST_TEST(all_finite(values));
    for (size_t i = 0; i < count; ++i)
      for (const float bad : {NAN, -NAN, kInfinity, -kInfinity}) {
        const float before = std::exchange(values[i], bad);
        BOOST_TEST(!all_finite(values), bad << " at " << i << " of " << count);
        values[i] = before;
      }
  }
}

BOOST_AUTO_TEST_CASE(log_sum_exp_is_accurate_and_equal_in_all_variants) {
  for (const size_t count : {size_t{1}, size_t{15}, size_t{16}, size_t{33}, size_t{49152}}) {
    const auto values = testing::random_floats(count, static_cast<uint32_t>(count), 5.0f);
    double sum = 0;
    for (const float value : values) sum += std::exp(static_cast<double>(value));
    const double reference = log_sum_exp(Isa::reference, values);
    BOOST_TEST_MESSAGE("log_sum_exp of " << count << ": off by " << reference - std::log(sum));
    BOOST_CHECK_SMALL(reference - std::log(sum), 1e-7);
    for (const Isa isa : available_isas()) BOOST_CHECK_EQUAL(log_sum_exp(isa, values), reference);
  }
}

BOOST_AUTO_TEST_CASE(select_finds_the_half_open_interval_in_order) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (const size_t count : {0, 1, 7, 8, 15, 16, 17, 100, 2048}) {
    auto values = testing::random_floats(count, static_cast<uint32_t>(count) + 1, 2.0f);
    for (size_t i = 0; i < count; i += 5) values[i] = i % 2 == 0 ? 1.0f : -0.5f;  // the ends
    for (size_t i = 3; i < count; i += 11) values[i] = i % 2 == 0 ? nan : inf;
    for (const auto& [above, up_to] : {std::pair{-0.5f, 1.0f}, {-inf, inf}, {2.0f, 1.0f}}) {
      std::vector<int32_t> want;
      for (size_t i = 0; i < count; ++i)
        if (values[i] > above && values[i] <= up_to) want.push_back(static_cast<int32_t>(i));
      for (const Isa isa : available_isas()) {
        std::vector<int32_t> got(count);
        got.resize(select(isa, values, above, up_to, got));
        BOOST_CHECK_EQUAL_COLLECTIONS(got.begin(), got.end(), want.begin(), want.end());
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(band_sums_are_equal_in_all_variants_and_lose_nothing) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const size_t count : {0, 1, 3, 15, 16, 17, 1000, 49152}) {
    auto values = testing::random_floats(count, static_cast<uint32_t>(count) + 5, 40.0f);
    for (float& value : values) value = -std::abs(value);
    for (size_t i = 0; i < count; i += 7) values[i] = i % 2 == 0 ? -inf : -31.75f;  // a border
    std::array<double, kNumBands> want{};
    for (const float value : values)
      want[static_cast<size_t>(std::min(-value * 4.0f, 127.0f))] += double{exp_f32(value)};
    std::array<double, kNumBands> reference;
    band_sums(Isa::reference, values, 0.0f, 4.0f, reference);
    for (size_t b = 0; b < kNumBands; ++b) BOOST_CHECK_CLOSE(reference[b], want[b], 1e-10);
    for (const Isa isa : available_isas()) {
      std::array<double, kNumBands> got;
      band_sums(isa, values, 0.0f, 4.0f, got);
      BOOST_CHECK_EQUAL_COLLECTIONS(got.begin(), got.end(), reference.begin(), reference.end());
    }
  }
}

BOOST_AUTO_TEST_CASE(shift_scale_is_equal_in_all_variants_and_keeps_to_its_values) {
  for (const size_t count : {0, 1, 7, 8, 15, 16, 17, 100}) {
    const auto values = testing::random_floats(count + 1, static_cast<uint32_t>(count) + 3, 9.0f);
    for (const Isa isa : available_isas()) {
      auto got = values;
      shift_scale(isa, std::span(got).first(count), 1.25f, 0.3f);
      for (size_t i = 0; i < count; ++i) BOOST_CHECK_EQUAL(got[i], (values[i] - 1.25f) * 0.3f);
      BOOST_CHECK_EQUAL(got[count], values[count]);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_nan_makes_the_last_band_nan) {
  std::vector<float> values(100, -1.0f);
  values[37] = std::numeric_limits<float>::quiet_NaN();
  for (const Isa isa : available_isas()) {
    std::array<double, kNumBands> sums;
    band_sums(isa, values, 0.0f, 4.0f, sums);
    BOOST_CHECK(std::isnan(sums[kNumBands - 1]));
    BOOST_CHECK_CLOSE(sums[4], 99 * double{exp_f32(-1.0f)}, 1e-10);
  }
}

// Vector exp, seen through the sum of one value in each of 16 lanes, over the whole range.
BOOST_AUTO_TEST_CASE(vector_exp_equals_scalar_exp) {
  for (const Isa isa : testing::vector_isas()) {
    for (float x = -106.0f; x < 90.0f; x += 0.0137f)
      BOOST_REQUIRE_EQUAL(std::bit_cast<uint64_t>(kernel_table(isa).sum_exp(&x, 1, 0.0f)),
                          std::bit_cast<uint64_t>(static_cast<double>(exp_f32(x))));
  }
}

}  // namespace
}  // namespace chainpump::kernels::cpu
