// Products: the reference against sums in double, every variant against the reference by bits, and
// the one law: a token's result does not depend on the batch, the team or the place of the call.
#include "kernels/cpu/matmul.h"

#include "tests/kernels/kernel_fixture.h"

namespace chainpump::kernels::cpu {
namespace {

using testing::check_equal_bits;
using testing::is_k_type;
using testing::kAllTypes;
using testing::random_floats;
using testing::random_weights;
using testing::relative_error;
using testing::vector_isas;

constexpr ActivationPrecision kPrecisions[] = {
    ActivationPrecision::normal, ActivationPrecision::fine, ActivationPrecision::exact};

struct Problem {
  DType type;
  ActivationPrecision precision;
  int64_t rows;
  int64_t cols;
  int64_t num_tokens;
  Store store = Store::assign;
  int64_t x_pad = 0;
  int64_t y_pad = 0;
};

std::string name_of(const Problem& p) {
  static constexpr const char* kWords[] = {"", " fine", " exact"};
  return fmt::format("{}{} {}x{} n={}", to_string(p.type), kWords[static_cast<size_t>(p.precision)],
                     p.rows, p.cols, p.num_tokens);
}

// The whole y [num_tokens, rows + y_pad], prefilled with 0.5 so that padding and add are seen.
std::vector<float> product(Isa isa, int team_size, const Problem& p, std::span<const std::byte> raw,
                           std::span<const float> x) {
  Team team = *Team::create({.num_threads = team_size, .spin = false});
  PackedMatrix w = PackedMatrix::pack(isa, p.type, p.precision, p.rows, p.cols, raw, team);
  ActivationBuffer buffer(isa, std::max<int64_t>(p.num_tokens, 1), p.cols);
  const int64_t y_stride = p.rows + p.y_pad;
  std::vector<float> y(static_cast<size_t>(p.num_tokens * y_stride), 0.5f);
  team.run([&](TeamMember& member) {
    buffer.prepare(member, w.form(), x.data(), p.num_tokens, p.cols, p.cols + p.x_pad);
    member.barrier();
    matmul(member, w, buffer, p.num_tokens, y.data(), y_stride, p.store);
  });
  return y;
}

std::vector<float> activations(const Problem& p, uint32_t seed) {
  return random_floats(static_cast<size_t>(p.num_tokens * (p.cols + p.x_pad)), seed);
}

// In double from dequantised weights and plain activations.
std::vector<float> oracle(const Problem& p, std::span<const std::byte> raw,
                          std::span<const float> x) {
  const int64_t y_stride = p.rows + p.y_pad;
  std::vector<float> y(static_cast<size_t>(p.num_tokens * y_stride), 0.5f);
  std::vector<float> row(static_cast<size_t>(p.cols));
  const auto bytes = static_cast<size_t>(row_bytes(p.type, p.cols));
  for (int64_t r = 0; r < p.rows; ++r) {
    dequantize_row(p.type, raw.subspan(static_cast<size_t>(r) * bytes, bytes), row);
    for (int64_t t = 0; t < p.num_tokens; ++t) {
      double sum = p.store == Store::add ? 0.5 : 0.0;
      for (int64_t c = 0; c < p.cols; ++c)
        sum += static_cast<double>(row[static_cast<size_t>(c)]) *
               static_cast<double>(x[static_cast<size_t>(t * (p.cols + p.x_pad) + c)]);
      y[static_cast<size_t>(t * y_stride + r)] = static_cast<float>(sum);
    }
  }
  return y;
}

double tolerance(const Problem& p) {
  switch (activation_form(p.type, p.precision)) {
    case ActivationForm::f32:
      return 2e-6;
    case ActivationForm::int8:
      return 2e-2;  // rounding activations to 8 bits
    case ActivationForm::int16:
      return 1e-4;
    case ActivationForm::bf16:
      return 1e-2;
  }
  return 0;
}

BOOST_AUTO_TEST_CASE(reference_is_near_the_sum_in_double) {
  for (const DType type : kAllTypes) {
    for (const ActivationPrecision precision : kPrecisions) {
      for (const Store store : {Store::assign, Store::add}) {
        const Problem p{type, precision, 37, 512, 5, store, 3, 2};
        const auto raw = random_weights(type, p.rows, p.cols, 11);
        const auto x = activations(p, 12);
        const double error =
            relative_error(product(Isa::reference, 1, p, raw, x), oracle(p, raw, x));
        BOOST_CHECK_MESSAGE(error <= tolerance(p), name_of(p) << ": error " << error);
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(variants_equal_the_reference) {
  for (const Isa isa : vector_isas()) {
    for (const DType type : kAllTypes) {
      for (const ActivationPrecision precision : kPrecisions) {
        for (const int64_t rows : {1, 15, 16, 17, 70, 130}) {
          for (const int64_t n : {1, 3, 16, 21}) {
            const Problem p{type, precision, rows, is_k_type(type) ? 512 : 96, n};
            const auto raw = random_weights(type, p.rows, p.cols, 21);
            const auto x = activations(p, 22);
            check_equal_bits(product(isa, 1, p, raw, x), product(Isa::reference, 1, p, raw, x),
                             name_of(p));
          }
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(any_number_of_tokens_and_strides) {
  for (const Isa isa : vector_isas()) {
    for (const DType type : kAllTypes) {
      for (int64_t n = 0; n <= 40; ++n) {
        const Problem p{type, ActivationPrecision::normal, 33, 256, n, Store::add, 5, 7};
        const auto raw = random_weights(type, p.rows, p.cols, 31);
        const auto x = activations(p, 32);
        check_equal_bits(product(isa, 1, p, raw, x), product(Isa::reference, 1, p, raw, x),
                         name_of(p));
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(columns_that_are_no_multiple_of_a_block) {
  for (const Isa isa : available_isas()) {
    for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
      for (const ActivationPrecision precision : kPrecisions) {
        for (const int64_t cols : {1, 2, 7, 31, 33, 65}) {
          const Problem p{type, precision, 19, cols, 18};
          const auto raw = random_weights(type, p.rows, p.cols, 41);
          const auto x = activations(p, 42);
          const auto got = product(isa, 2, p, raw, x);
          BOOST_CHECK_LE(relative_error(got, oracle(p, raw, x)), tolerance(p));
          check_equal_bits(got, product(Isa::reference, 1, p, raw, x), name_of(p));
        }
      }
    }
  }
}

// The one law.
BOOST_AUTO_TEST_CASE(a_token_gets_the_same_bits_in_any_batch_and_team) {
  for (const Isa isa : available_isas()) {
    for (const DType type : kAllTypes) {
      for (const ActivationPrecision precision : kPrecisions) {
        const Problem whole{type, precision, 50, 256, 37};
        const auto raw = random_weights(type, whole.rows, whole.cols, 51);
        const auto x = activations(whole, 52);
        const auto want = product(isa, 1, whole, raw, x);
        for (const int team_size : {2, 3})
          check_equal_bits(product(isa, team_size, whole, raw, x), want, name_of(whole) + " team");
        for (const int64_t chunk : {1, 7, 16}) {
          for (int64_t begin = 0; begin < whole.num_tokens; begin += chunk) {
            Problem part = whole;
            part.num_tokens = std::min(chunk, whole.num_tokens - begin);
            const auto x_part =
                std::span(x).subspan(static_cast<size_t>(begin * whole.cols),
                                     static_cast<size_t>(part.num_tokens * whole.cols));
            const auto want_part =
                std::span(want).subspan(static_cast<size_t>(begin * whole.rows),
                                        static_cast<size_t>(part.num_tokens * whole.rows));
            check_equal_bits(product(isa, part.num_tokens == 1 ? 3 : 2, part, raw, x_part),
                             want_part, name_of(part) + " chunk");
          }
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(large_sweeps_keep_the_bits) {
  for (const Isa isa : vector_isas()) {
    for (const DType type : {DType::q4_1, DType::f32, DType::bf16}) {
      const Problem whole{type, ActivationPrecision::normal, 20, 8192,
                          150};  // more than one sweep of activations
      const auto raw = random_weights(type, whole.rows, whole.cols, 61);
      const auto x = activations(whole, 62);
      const auto want = product(isa, 1, whole, raw, x);
      Problem last = whole;
      last.num_tokens = 1;
      check_equal_bits(
          product(isa, 1, last, raw, std::span(x).last(static_cast<size_t>(whole.cols))),
          std::span(want).last(static_cast<size_t>(whole.rows)), name_of(whole));
    }
  }
}

// A value that is not a number must reach the output of its own token and of no other.
BOOST_AUTO_TEST_CASE(not_a_number_stays_in_its_token) {
  for (const Isa isa : available_isas()) {
    for (const DType type : {DType::q4_0, DType::q4_1, DType::bf16, DType::f16}) {
      for (const float bad : {std::nanf(""), INFINITY}) {
        const Problem p{type, ActivationPrecision::normal, 16, 64, 3};
        const auto raw = random_weights(type, p.rows, p.cols, 71);
        auto x = activations(p, 72);
        const auto good = product(isa, 1, p, raw, x);
        x[64 + 40] = bad;
        const auto got = product(isa, 1, p, raw, x);
        check_equal_bits(std::span(got).first(16), std::span(good).first(16), "token 0");
        check_equal_bits(std::span(got).last(16), std::span(good).last(16), "token 2");
        for (size_t r = 16; r < 32; ++r) BOOST_CHECK(!std::isfinite(got[r]));
      }
    }
  }
}

// What a layer does: rows converted in pieces by whoever made them, products of its own columns.
BOOST_AUTO_TEST_CASE(pieces_equal_the_whole) {
  for (const Isa isa : available_isas()) {
    for (const DType type : {DType::f32, DType::q4_1, DType::bf16}) {
      for (const auto precision : {ActivationPrecision::normal, ActivationPrecision::fine}) {
        for (const int64_t n : {1, 5, 18}) {
          const Problem p{type, precision, 70, 96, n};
          const auto raw = random_weights(type, p.rows, p.cols, 91);
          const auto x = activations(p, 92);
          Team team = *Team::create({.num_threads = 1, .spin = false});
          const PackedMatrix w =
              PackedMatrix::pack(isa, type, precision, p.rows, p.cols, raw, team);
          ActivationBuffer buffer(isa, n, p.cols);
          for (int64_t t = n - 1; t >= 0; --t)
            for (const Range part : {Range{64, 96}, Range{0, 64}, Range{96, 96}})
              buffer.convert(w.form(), x.data() + t * p.cols, t, n, p.cols, part);
          std::vector<float> y(static_cast<size_t>(n * p.rows), 0.5f);
          for (const Range rows : {Range{48, 70}, Range{0, 16}, Range{32, 32}, Range{16, 48}})
            matmul_rows(w, buffer, n, rows, y.data() + rows.begin, p.rows, Store::assign);
          check_equal_bits(y, product(isa, 1, p, raw, x), name_of(p));
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(zero_and_tiny_activations_give_zero) {
  for (const Isa isa : available_isas()) {
    for (const float value : {0.0f, 1e-38f, -1e-35f}) {
      const Problem p{DType::q8_0, ActivationPrecision::normal, 20, 64, 2};
      const auto raw = random_weights(p.type, p.rows, p.cols, 81);
      const std::vector<float> x(128, value);
      for (const float y : product(isa, 1, p, raw, x)) BOOST_CHECK_EQUAL(y, 0.0f);
    }
  }
}

}  // namespace
}  // namespace chainpump::kernels::cpu
