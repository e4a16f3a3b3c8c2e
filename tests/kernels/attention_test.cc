// Attention: the reference against a plain softmax in double, variants against the reference by
// bits, and the one law over chunks, batches, teams and stale cache contents.
#include "kernels/cpu/attention.h"

#include <numeric>

#include "tests/kernels/kernel_fixture.h"

namespace chainpump::kernels::cpu {
namespace {

using testing::check_equal_bits;
using testing::random_floats;
using testing::relative_error;
using testing::vector_isas;

struct Shape {
  DType type;
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_dim;
  int32_t num_tokens;
  int64_t q_cols() const { return int64_t{num_heads} * head_dim; }
  int64_t kv_cols() const { return int64_t{num_kv_heads} * head_dim; }
};

std::string name_of(Isa isa, const Shape& s) {
  return fmt::format("{} {} heads {}/{} dim {} tokens {}", to_string(isa), to_string(s.type),
                     s.num_heads, s.num_kv_heads, s.head_dim, s.num_tokens);
}

// A pool whose blocks are handed out in a scrambled order; stale contents are not numbers, so that
// a kernel which looks past a query's position is found out.
class Cache {
 public:
  Cache(const Shape& s, int32_t num_sequences) : shape_(s) {
    per_sequence_ = (s.num_tokens + kKvBlockTokens - 1) / kKvBlockTokens;
    const int64_t num_blocks = int64_t{per_sequence_} * num_sequences;
    data_.resize(
        static_cast<size_t>(num_blocks * kv_block_bytes(s.type, s.num_kv_heads, s.head_dim)) + 64,
        std::byte{0xff});
    const auto address = reinterpret_cast<uintptr_t>(data_.data());
    layer_ = {data_.data() + ((address + 63) / 64 * 64 - address), s.type, num_blocks,
              s.num_kv_heads, s.head_dim};
    table_.resize(static_cast<size_t>(num_blocks));
    for (int64_t i = 0; i < num_blocks; ++i)
      table_[static_cast<size_t>(i)] = KvBlockId(static_cast<int32_t>(num_blocks - 1 - i));
  }
  const KvLayer& layer() const { return layer_; }
  AttentionSlice slice(int32_t sequence, int64_t row, int32_t first, int32_t count) const {
    return {row, count, first,
            std::span(table_).subspan(static_cast<size_t>(sequence * per_sequence_),
                                      static_cast<size_t>(per_sequence_))};
  }

 private:
  Shape shape_;
  int32_t per_sequence_;
  std::vector<std::byte> data_;
  std::vector<KvBlockId> table_;
  KvLayer layer_;
};

struct Inputs {
  std::vector<float> q;
  std::vector<float> k;
  std::vector<float> v;
};

Inputs make_inputs(const Shape& s, uint32_t seed) {
  const auto n = static_cast<size_t>(s.num_tokens);
  return {random_floats(n * static_cast<size_t>(s.q_cols()), seed, 2.0f),
          random_floats(n * static_cast<size_t>(s.kv_cols()), seed + 1),
          random_floats(n * static_cast<size_t>(s.kv_cols()), seed + 2)};
}

float scale_of(const Shape& s) { return 1.0f / std::sqrt(static_cast<float>(s.head_dim)); }

// Feeds one sequence in chunks and gathers the outputs.
std::vector<float> run(Isa isa, int team_size, const Shape& s, const Inputs& in, int32_t chunk) {
  Team team({.num_threads = team_size, .spin = false});
  const Cache cache(s, 1);
  std::vector<float> out(in.q.size());
  for (int32_t begin = 0; begin < s.num_tokens; begin += chunk) {
    const int32_t count = std::min(chunk, s.num_tokens - begin);
    const std::vector<AttentionSlice> slices = {cache.slice(0, 0, begin, count)};
    team.run([&](TeamMember& member) {
      append_kv(isa, member, cache.layer(), slices, in.k.data() + begin * s.kv_cols(),
                in.v.data() + begin * s.kv_cols(), s.kv_cols());
      member.barrier();
      attention(isa, member, cache.layer(), slices, s.num_heads, scale_of(s),
                in.q.data() + begin * s.q_cols(), s.q_cols(), out.data() + begin * s.q_cols(),
                s.q_cols());
    });
  }
  return out;
}

double rounded(DType type, float value) {
  if (type == DType::f16) return static_cast<double>(f16_to_float(float_to_f16(value)));
  if (type == DType::bf16) return static_cast<double>(bf16_to_float(float_to_bf16(value)));
  return static_cast<double>(value);
}

std::vector<float> oracle(const Shape& s, const Inputs& in) {
  std::vector<float> out(in.q.size());
  const int32_t group = s.num_heads / s.num_kv_heads;
  for (int32_t t = 0; t < s.num_tokens; ++t) {
    for (int32_t h = 0; h < s.num_heads; ++h) {
      const float* q = in.q.data() + t * s.q_cols() + h * s.head_dim;
      const auto kv_at = [&](int32_t j) {
        return static_cast<size_t>(j * s.kv_cols() + h / group * s.head_dim);
      };
      std::vector<double> p(static_cast<size_t>(t) + 1);
      for (int32_t j = 0; j <= t; ++j) {
        double dot = 0;
        for (int32_t d = 0; d < s.head_dim; ++d)
          dot +=
              static_cast<double>(q[d]) * rounded(s.type, in.k[kv_at(j) + static_cast<size_t>(d)]);
        p[static_cast<size_t>(j)] = dot * static_cast<double>(scale_of(s));
      }
      const double largest = *std::max_element(p.begin(), p.end());
      for (double& value : p) value = std::exp(value - largest);
      const double sum = std::accumulate(p.begin(), p.end(), 0.0);
      for (int32_t d = 0; d < s.head_dim; ++d) {
        double value = 0;
        for (int32_t j = 0; j <= t; ++j)
          value +=
              p[static_cast<size_t>(j)] * rounded(s.type, in.v[kv_at(j) + static_cast<size_t>(d)]);
        out[static_cast<size_t>(t * s.q_cols() + h * s.head_dim + d)] =
            static_cast<float>(value / sum);
      }
    }
  }
  return out;
}

const std::vector<Shape> kShapes = {
    {DType::f32, 9, 3, 64, 75},  {DType::bf16, 9, 3, 64, 40}, {DType::f16, 9, 3, 64, 40},
    {DType::f32, 4, 4, 16, 33},  {DType::f32, 8, 1, 128, 34}, {DType::f16, 2, 1, 80, 65},
    {DType::bf16, 3, 1, 20, 64}, {DType::f32, 2, 2, 8, 1},    {DType::f32, 5, 1, 100, 32}};

BOOST_AUTO_TEST_CASE(reference_is_near_the_softmax_in_double) {
  for (const Shape& s : kShapes) {
    const Inputs in = make_inputs(s, 3);
    const double error = relative_error(run(Isa::reference, 1, s, in, s.num_tokens), oracle(s, in));
    BOOST_CHECK_MESSAGE(error < 2e-6, name_of(Isa::reference, s) << ": " << error);
  }
}

BOOST_AUTO_TEST_CASE(variants_equal_the_reference) {
  for (const Isa isa : vector_isas())
    for (const Shape& s : kShapes) {
      const Inputs in = make_inputs(s, 5);
      check_equal_bits(run(isa, 1, s, in, s.num_tokens),
                       run(Isa::reference, 1, s, in, s.num_tokens), name_of(isa, s));
    }
}

BOOST_AUTO_TEST_CASE(chunks_and_teams_do_not_change_a_bit) {
  for (const Isa isa : available_isas()) {
    for (const Shape& s : kShapes) {
      const Inputs in = make_inputs(s, 7);
      const auto want = run(isa, 1, s, in, s.num_tokens);
      for (const int32_t chunk : {1, 2, 7, 32, 64})
        for (const int team_size : {1, 2, 3})
          check_equal_bits(run(isa, team_size, s, in, chunk), want, name_of(isa, s) + " chunk");
    }
  }
}

// Sequences of different lengths in one call, decoding and prefilling side by side.
BOOST_AUTO_TEST_CASE(a_batch_of_sequences_equals_each_alone) {
  const Shape s{DType::f32, 9, 3, 64, 70};
  for (const Isa isa : available_isas()) {
    const std::vector<Inputs> in = {make_inputs(s, 11), make_inputs(s, 12), make_inputs(s, 13)};
    const Cache cache(s, 3);
    // What is already in the cache, and what this call adds.
    const int32_t before[3] = {69, 0, 31};
    const int32_t added[3] = {1, 40, 3};
    Team team({.num_threads = 2, .spin = false});
    std::vector<float> q;
    std::vector<float> k;
    std::vector<float> v;
    std::vector<AttentionSlice> slices;
    int64_t row = 0;
    for (int32_t i = 0; i < 3; ++i) {
      const Inputs& mine = in[static_cast<size_t>(i)];
      if (before[i] > 0) {
        const std::vector<AttentionSlice> old = {cache.slice(i, 0, 0, before[i])};
        team.run([&](TeamMember& member) {
          append_kv(isa, member, cache.layer(), old, mine.k.data(), mine.v.data(), s.kv_cols());
        });
      }
      slices.push_back(cache.slice(i, row, before[i], added[i]));
      row += added[i];
      const auto add = [&](std::vector<float>& to, const std::vector<float>& from, int64_t cols) {
        to.insert(to.end(), from.begin() + before[i] * cols,
                  from.begin() + (before[i] + added[i]) * cols);
      };
      add(q, mine.q, s.q_cols());
      add(k, mine.k, s.kv_cols());
      add(v, mine.v, s.kv_cols());
    }
    std::vector<float> out(q.size());
    team.run([&](TeamMember& member) {
      append_kv(isa, member, cache.layer(), slices, k.data(), v.data(), s.kv_cols());
      member.barrier();
      attention(isa, member, cache.layer(), slices, s.num_heads, scale_of(s), q.data(), s.q_cols(),
                out.data(), s.q_cols());
    });
    for (size_t i = 0; i < 3; ++i) {
      const auto alone = run(isa, 1, s, in[i], s.num_tokens);
      check_equal_bits(std::span(out).subspan(static_cast<size_t>(slices[i].first_row * s.q_cols()),
                                              static_cast<size_t>(added[i] * s.q_cols())),
                       std::span(alone).subspan(static_cast<size_t>(before[i] * s.q_cols()),
                                                static_cast<size_t>(added[i] * s.q_cols())),
                       fmt::format("{} sequence {}", to_string(isa), i));
    }
  }
}

BOOST_AUTO_TEST_CASE(no_slices_and_no_tokens_write_nothing) {
  const Shape s{DType::f32, 3, 1, 64, 8};
  const std::vector<float> q(static_cast<size_t>(s.q_cols()), 1.0f);
  std::vector<float> out(q.size(), 7.0f);
  const Cache cache(s, 1);
  Team team({.num_threads = 2, .spin = false});
  for (const Isa isa : available_isas()) {
    const std::vector<AttentionSlice> empty = {cache.slice(0, 0, 0, 0)};
    team.run([&](TeamMember& member) {
      attention(isa, member, cache.layer(), {}, 3, 1.0f, q.data(), 0, out.data(), 0);
      attention(isa, member, cache.layer(), empty, 3, 1.0f, q.data(), 0, out.data(), 0);
    });
    for (const float value : out) BOOST_CHECK_EQUAL(value, 7.0f);
  }
}

}  // namespace
}  // namespace chainpump::kernels::cpu
