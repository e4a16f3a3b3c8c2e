// Row-wise operations against double, by bits between variants, and whole or in pieces.
#include "kernels/cpu/elementwise.h"

#include "tests/kernels/kernel_fixture.h"

namespace chainpump::kernels::cpu {
namespace {

using testing::check_equal_bits;
using testing::random_floats;
using testing::relative_error;

BOOST_AUTO_TEST_CASE(rms_norm_matches_double_and_all_variants) {
  for (const int64_t cols : {1, 15, 16, 17, 64, 576, 1000}) {
    const int64_t n = 5;
    const auto x = random_floats(static_cast<size_t>(n * cols), 1, 3.0f);
    const auto weight = random_floats(static_cast<size_t>(cols), 2);
    std::vector<float> want(x.size());
    for (int64_t t = 0; t < n; ++t) {
      double sum = 0;
      for (int64_t c = 0; c < cols; ++c) {
        const auto v = static_cast<double>(x[static_cast<size_t>(t * cols + c)]);
        sum += v * v;
      }
      const double inverse = 1.0 / std::sqrt(sum / static_cast<double>(cols) + 1e-5);
      for (int64_t c = 0; c < cols; ++c) {
        const auto at = static_cast<size_t>(t * cols + c);
        want[at] = static_cast<float>(static_cast<double>(x[at]) * inverse *
                                      static_cast<double>(weight[static_cast<size_t>(c)]));
      }
    }
    std::vector<float> first;
    for (const Isa isa : available_isas()) {
      std::vector<float> got = x;  // in place
      for (int64_t t = 0; t < n; ++t) {
        float* row = got.data() + t * cols;
        rms_norm(isa, row, weight.data(), 1e-5f, cols, row);
      }
      BOOST_CHECK_LE(relative_error(got, want), 1e-6);
      if (first.empty()) first = got;
      check_equal_bits(got, first, fmt::format("rms_norm {} {}", to_string(isa), cols));
    }
  }
}

BOOST_AUTO_TEST_CASE(silu_mul_matches_double_and_all_variants) {
  for (const int64_t cols : {1, 16, 37, 1536}) {
    auto gate = random_floats(static_cast<size_t>(3 * cols), 3, 8.0f);
    gate[0] = -120.0f;
    const auto up = random_floats(gate.size(), 4);
    std::vector<float> want(gate.size());
    for (size_t i = 0; i < want.size(); ++i) {
      const auto g = static_cast<double>(gate[i]);
      want[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * static_cast<double>(up[i]));
    }
    std::vector<float> first;
    for (const Isa isa : available_isas()) {
      std::vector<float> got = gate;  // in place, in pieces as members of a team have them
      const auto count = static_cast<int64_t>(got.size());
      const int64_t cut = count / 2;
      silu_mul(isa, got.data(), up.data(), cut, got.data());
      silu_mul(isa, got.data() + cut, up.data() + cut, count - cut, got.data() + cut);
      BOOST_CHECK_LE(relative_error(got, want), 1e-6);
      if (first.empty()) first = got;
      check_equal_bits(got, first, fmt::format("silu_mul {} {}", to_string(isa), cols));
    }
  }
}

BOOST_AUTO_TEST_CASE(rope_turns_the_named_pairs) {
  const int32_t head_dim = 20;
  const int32_t num_heads = 3;
  const std::vector<float> frequencies = {1.0f, 0.3f, 0.05f, 0.001f, 0.7f, 0.2f, 0.11f, 0.9f};
  const std::vector<int32_t> positions = {0, 1, 77, 8191, 100000};
  const auto half = static_cast<int32_t>(frequencies.size());
  const int64_t stride = num_heads * head_dim + 4;
  const auto x = random_floats(positions.size() * static_cast<size_t>(stride), 9);
  for (const RopePairs pairs : {RopePairs::adjacent, RopePairs::halves}) {
    std::vector<float> want = x;
    for (size_t t = 0; t < positions.size(); ++t) {
      for (int32_t h = 0; h < num_heads; ++h) {
        for (int32_t i = 0; i < half; ++i) {
          const size_t base = t * static_cast<size_t>(stride) + static_cast<size_t>(h * head_dim);
          const size_t a = base + static_cast<size_t>(pairs == RopePairs::adjacent ? 2 * i : i);
          const size_t b = a + static_cast<size_t>(pairs == RopePairs::adjacent ? 1 : half);
          const auto angle = static_cast<double>(static_cast<float>(positions[t]) *
                                                 frequencies[static_cast<size_t>(i)]);
          const auto xa = static_cast<double>(x[a]);
          const auto xb = static_cast<double>(x[b]);
          want[a] = static_cast<float>(1.25 * (xa * std::cos(angle) - xb * std::sin(angle)));
          want[b] = static_cast<float>(1.25 * (xa * std::sin(angle) + xb * std::cos(angle)));
        }
      }
    }
    std::vector<float> first;
    for (const Isa isa : available_isas()) {
      std::vector<float> whole = x;
      std::vector<float> pieces = x;
      const int64_t cols = num_heads * head_dim;
      for (size_t t = 0; t < positions.size(); ++t) {
        std::vector<float> turns(2 * frequencies.size());
        rope_turns(isa, positions[t], frequencies, 1.25f, turns.data());
        float* row = whole.data() + t * static_cast<size_t>(stride);
        rope(isa, row, {0, cols}, head_dim, 2 * half, turns.data(), pairs);
        row = pieces.data() + t * static_cast<size_t>(stride);
        const int64_t granule = pairs == RopePairs::adjacent ? 6 : head_dim;
        for (int64_t at = 0; at < cols; at += granule)
          rope(isa, row + at, {at, std::min(at + granule, cols)}, head_dim, 2 * half, turns.data(),
               pairs);
      }
      BOOST_CHECK_LE(relative_error(whole, want), 1e-6);
      check_equal_bits(pieces, whole, "rope in pieces");
      if (first.empty()) first = whole;
      check_equal_bits(whole, first, fmt::format("rope {}", to_string(isa)));
    }
  }
}

}  // namespace
}  // namespace chainpump::kernels::cpu
