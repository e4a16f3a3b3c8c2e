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
  int32_t num_queries = 0;  // of the last tokens; 0: all
  int32_t first_query() const { return num_queries == 0 ? 0 : num_tokens - num_queries; }
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
  int64_t bytes() const {
    return layer_.num_blocks * kv_block_bytes(shape_.type, shape_.num_kv_heads, shape_.head_dim);
  }
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

// Feeds one sequence in chunks and gathers the outputs, from the shape's first query on.
std::vector<float> run(Isa isa, int team_size, const Shape& s, const Inputs& in, int32_t chunk) {
  Team team = *Team::create({.num_threads = team_size, .spin = false});
  const Cache cache(s, 1);
  std::vector<float> out(in.q.size());
  std::vector<float> scratch(
      static_cast<size_t>(attention_scratch_floats(team_size, s.num_tokens, s.head_dim)));
  for (int32_t begin = 0; begin < s.num_tokens;) {
    int32_t count = std::min(chunk, s.num_tokens - begin);
    if (begin < s.first_query()) count = s.first_query() - begin;  // keys alone, all at once
    const std::vector<AttentionSlice> slices = {cache.slice(0, 0, begin, count)};
    team.run([&](TeamMember& member) {
      append_kv(isa, member, cache.layer(), slices, in.k.data() + begin * s.kv_cols(),
                in.v.data() + begin * s.kv_cols(), s.kv_cols());
      member.barrier();
      if (begin < s.first_query()) return;
      attention(isa, member, cache.layer(), slices, s.num_heads, scale_of(s),
                in.q.data() + begin * s.q_cols(), s.q_cols(), out.data() + begin * s.q_cols(),
                s.q_cols(), scratch);
    });
    begin += count;
  }
  out.erase(out.begin(), out.begin() + s.first_query() * s.q_cols());
  return out;
}

// What the cache makes of a row of one head.
std::vector<double> rounded(DType type, const float* row, int32_t head_dim) {
  std::vector<double> values(row, row + head_dim);
  double largest = 0;
  for (const double value : values) largest = std::max(largest, std::abs(value));
  for (double& value : values) {
    const auto narrow = static_cast<float>(value);
    if (type == DType::f16) value = static_cast<double>(f16_to_float(float_to_f16(narrow)));
    if (type == DType::bf16) value = static_cast<double>(bf16_to_float(float_to_bf16(narrow)));
    if (type == DType::int8) value = std::nearbyint(value * 127 / largest) * largest / 127;
  }
  return values;
}

// softmax(scale q K^T) V of what the cache holds, in double; bf16 and int8 round q and the weights
// as well, which this does not.
std::vector<float> oracle(const Shape& s, const Inputs& in) {
  std::vector<float> out;
  const int32_t group = s.num_heads / s.num_kv_heads;
  for (int32_t t = s.first_query(); t < s.num_tokens; ++t) {
    for (int32_t h = 0; h < s.num_heads; ++h) {
      const float* q = in.q.data() + t * s.q_cols() + h * s.head_dim;
      const auto row_of = [&](const std::vector<float>& from, int32_t j) {
        return rounded(s.type, from.data() + j * s.kv_cols() + h / group * s.head_dim, s.head_dim);
      };
      std::vector<double> p(static_cast<size_t>(t) + 1);
      for (int32_t j = 0; j <= t; ++j) {
        const std::vector<double> k = row_of(in.k, j);
        p[static_cast<size_t>(j)] =
            std::inner_product(k.begin(), k.end(), q, 0.0) * static_cast<double>(scale_of(s));
      }
      const double largest = *std::max_element(p.begin(), p.end());
      for (double& value : p) value = std::exp(value - largest);
      const double sum = std::accumulate(p.begin(), p.end(), 0.0);
      std::vector<double> value(static_cast<size_t>(s.head_dim));
      for (int32_t j = 0; j <= t; ++j) {
        const std::vector<double> v = row_of(in.v, j);
        for (size_t d = 0; d < v.size(); ++d) value[d] += p[static_cast<size_t>(j)] / sum * v[d];
      }
      out.insert(out.end(), value.begin(), value.end());
    }
  }
  return out;
}

const std::vector<DType> kKvTypes = {DType::f32, DType::bf16, DType::f16, DType::int8};

// Every type with every kind of head: sizes that fill vectors and sizes that do not, groups of one
// to eight, lengths round the borders of runs, blocks and steps.
std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (const DType type : kKvTypes) {
    for (const Shape& s : std::vector<Shape>{{type, 9, 3, 64, 75},
                                             {type, 4, 4, 32, 33},
                                             {type, 8, 1, 128, 34},
                                             {type, 10, 2, 80, 31},
                                             {type, 6, 1, 96, 32},
                                             {type, 7, 1, 256, 3},
                                             {type, 3, 1, 20, 130},
                                             {type, 2, 2, 8, 1},
                                             {type, 5, 1, 101, 66},
                                             {type, 8, 2, 16, 257},
                                             {type, 2, 1, 512, 5},
                                             {type, 9, 3, 64, 1000, 9},
                                             {type, 8, 2, 128, 640, 3}})
      all.push_back(s);
  }
  return all;
}

double bound_of(DType type) {
  return type == DType::bf16 ? 4e-3 : type == DType::int8 ? 3e-2 : 2e-6;
}

BOOST_AUTO_TEST_CASE(reference_is_near_the_softmax_in_double) {
  for (const Shape& s : shapes()) {
    const Inputs in = make_inputs(s, 3);
    const double error = relative_error(run(Isa::reference, 1, s, in, s.num_tokens), oracle(s, in));
    BOOST_CHECK_MESSAGE(error < bound_of(s.type), name_of(Isa::reference, s) << ": " << error);
  }
}

BOOST_AUTO_TEST_CASE(variants_equal_the_reference) {
  for (const Shape& s : shapes()) {
    const Inputs in = make_inputs(s, 5);
    const auto want = run(Isa::reference, 1, s, in, s.num_tokens);
    for (const Isa isa : vector_isas())
      check_equal_bits(run(isa, 1, s, in, s.num_tokens), want, name_of(isa, s));
  }
}

BOOST_AUTO_TEST_CASE(chunks_and_teams_do_not_change_a_bit) {
  for (const Isa isa : available_isas()) {
    for (const Shape& s : shapes()) {
      if (isa == Isa::reference && s.num_tokens > 100) continue;  // slow, and the same cuts
      const Inputs in = make_inputs(s, 7);
      const auto want = run(isa, 1, s, in, s.num_tokens);
      for (const int32_t chunk : {1, 2, 7, 32, 64})
        for (const int team_size : {1, 2, 3})
          check_equal_bits(run(isa, team_size, s, in, chunk), want, name_of(isa, s) + " chunk");
    }
  }
}

// Scores far apart, all equal, and weights that vanish: the running maximum moves in every step.
BOOST_AUTO_TEST_CASE(extreme_scores_keep_their_bits) {
  for (const DType type : kKvTypes) {
    const Shape s{type, 6, 2, 64, 300, 40};
    Inputs in = make_inputs(s, 9);
    for (size_t i = 0; i < in.k.size(); ++i) in.k[i] *= static_cast<float>(i / 2000);
    std::fill_n(in.v.begin(), 64 * 64, 0.0f);
    std::fill(in.q.end() - 64, in.q.end(), 0.0f);
    std::fill(in.q.end() - 192, in.q.end() - 128, 1e-38f);
    const auto want = run(Isa::reference, 1, s, in, s.num_tokens);
    BOOST_CHECK_LT(relative_error(want, oracle(s, in)), type == DType::int8   ? 0.2
                                                        : type == DType::bf16 ? 0.1
                                                                              : 2e-5);
    for (const Isa isa : vector_isas())
      for (const int team_size : {1, 2})
        check_equal_bits(run(isa, team_size, s, in, 40), want, name_of(isa, s) + " extreme");
  }
}

// Rows of the cache as each variant writes them, special values among them.
BOOST_AUTO_TEST_CASE(appending_equals_the_reference) {
  for (const DType type : kKvTypes) {
    for (const int32_t head_dim : {1, 15, 64, 101}) {
      const Shape s{type, 2, 2, head_dim, 70};
      Inputs in = make_inputs(s, 15);
      in.k[0] = 1e-40f;
      in.k[1] = 70000.0f;
      in.v[0] = -0.0f;
      in.v[1] = std::numeric_limits<float>::infinity();
      std::fill_n(in.k.end() - 2 * head_dim, head_dim, 1e-31f);
      std::vector<std::vector<std::byte>> contents;
      for (const Isa isa : available_isas()) {
        const Cache cache(s, 1);
        Team team = *Team::create({.num_threads = 2, .spin = false});
        for (const auto& [begin, count] : {std::pair{0, 33}, {33, 1}, {34, 36}}) {
          const std::vector<AttentionSlice> slices = {cache.slice(0, 0, begin, count)};
          team.run([&](TeamMember& member) {
            append_kv(isa, member, cache.layer(), slices, in.k.data() + begin * s.kv_cols(),
                      in.v.data() + begin * s.kv_cols(), s.kv_cols());
          });
        }
        contents.emplace_back(cache.layer().data, cache.layer().data + cache.bytes());
      }
      for (size_t i = 1; i < contents.size(); ++i)
        BOOST_CHECK_MESSAGE(contents[i] == contents[0], name_of(available_isas()[i], s)
                                                            << ": the cache differs");
    }
  }
}

// A value that is no number makes no number of whatever may see it, and of nothing else.
BOOST_AUTO_TEST_CASE(not_a_number_stays_one) {
  for (const DType type : kKvTypes) {
    const Shape s{type, 2, 1, 32, 40};
    Inputs in = make_inputs(s, 17);
    in.v[20 * 32 + 5] = std::numeric_limits<float>::quiet_NaN();
    for (const Isa isa : available_isas()) {
      const auto out = run(isa, 1, s, in, 40);
      for (size_t t = 0; t < 40; ++t) BOOST_CHECK_EQUAL(std::isnan(out[t * 64 + 5]), t >= 20);
    }
  }
}

// Sequences of different lengths in one call, decoding and prefilling side by side.
void check_batch(Isa isa, const Shape& s) {
  {
    const std::vector<Inputs> in = {make_inputs(s, 11), make_inputs(s, 12), make_inputs(s, 13)};
    const Cache cache(s, 3);
    // What is already in the cache, and what this call adds.
    const int32_t before[3] = {69, 0, 31};
    const int32_t added[3] = {1, 40, 3};
    Team team = *Team::create({.num_threads = 2, .spin = false});
    std::vector<float> scratch(
        static_cast<size_t>(attention_scratch_floats(2, s.num_tokens, s.head_dim)));
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
                out.data(), s.q_cols(), scratch);
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

BOOST_AUTO_TEST_CASE(a_batch_of_sequences_equals_each_alone) {
  for (const Isa isa : available_isas())
    for (const DType type : kKvTypes) check_batch(isa, {type, 9, 3, 64, 70});
}

BOOST_AUTO_TEST_CASE(no_slices_and_no_tokens_write_nothing) {
  const Shape s{DType::f32, 3, 1, 64, 8};
  const std::vector<float> q(static_cast<size_t>(s.q_cols()), 1.0f);
  std::vector<float> out(q.size(), 7.0f);
  const Cache cache(s, 1);
  Team team = *Team::create({.num_threads = 2, .spin = false});
  for (const Isa isa : available_isas()) {
    const std::vector<AttentionSlice> empty = {cache.slice(0, 0, 0, 0)};
    team.run([&](TeamMember& member) {
      attention(isa, member, cache.layer(), {}, 3, 1.0f, q.data(), 0, out.data(), 0, {});
      attention(isa, member, cache.layer(), empty, 3, 1.0f, q.data(), 0, out.data(), 0, {});
    });
    for (const float value : out) BOOST_CHECK_EQUAL(value, 7.0f);
  }
}

}  // namespace
}  // namespace chainpump::kernels::cpu
