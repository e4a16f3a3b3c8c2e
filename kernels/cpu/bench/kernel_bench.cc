// Prints, per operation and shape of a model, what the kernels achieve, the machine's bound
// measured in the same run, and the ratio. Weights are random, in sets larger than the caches, so
// that a product reads memory as a decode step does.
//
//   kernel_bench [--threads N] [--type q4_1] [--model smollm2-135m|llama-8b]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/measure.h"

namespace chainpump::kernels::cpu {
namespace {

struct ModelShape {
  std::string name;
  int64_t hidden;
  int64_t ff;
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_dim;
};

const ModelShape kSmol = {"smollm2-135m", 576, 1536, 9, 3, 64};
const ModelShape kLlama8b = {"llama-8b", 4096, 14336, 32, 8, 128};
constexpr int64_t kColdBytes = 96 << 20;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median_seconds(int tries, const std::function<void()>& work) {
  work();
  std::vector<double> times;
  for (int i = 0; i < tries; ++i) {
    const double start = seconds();
    work();
    times.push_back(seconds() - start);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

std::vector<std::byte> random_rows(DType type, int64_t rows, int64_t cols) {
  std::mt19937 random(1);
  std::vector<std::byte> raw(static_cast<size_t>(rows * row_bytes(type, cols)));
  for (std::byte& byte : raw) byte = static_cast<std::byte>(random() & 0x3b);  // no large scales
  return raw;
}

std::vector<float> random_floats(int64_t count) {
  std::mt19937 random(2);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(random() % 2001) / 500.0f - 2.0f;
  return values;
}

void report(const std::string& what, double achieved, double bound, const char* unit) {
  fmt::print("{:<42} {:>9.1f} {:<7} bound {:>9.1f}  ratio {:.2f}\n", what, achieved / 1e9, unit,
             bound / 1e9, achieved / bound);
}

double peak_of(const MachineRates& rates, ActivationForm form) {
  switch (form) {
    case ActivationForm::f32:
      return rates.f32_ops_per_second;
    case ActivationForm::int8:
    case ActivationForm::int16:
      return rates.int8_ops_per_second;
    case ActivationForm::bf16:
      return rates.bf16_ops_per_second;
  }
  return 0;
}

void bench_product(Isa isa, Team& team, const MachineRates& rates, DType type, int64_t rows,
                   int64_t cols) {
  const auto raw = random_rows(type, rows, cols);
  std::vector<PackedMatrix> copies;
  int64_t bytes = 0;
  while (bytes < kColdBytes) {
    auto packed = PackedMatrix::pack(isa, type, ActivationPrecision::normal, rows, cols, raw, team);
    bytes += packed->bytes();
    copies.push_back(std::move(packed).value());
  }
  for (const int64_t n : {1, 4, 16, 256}) {
    const auto x = random_floats(n * cols);
    std::vector<float> y(static_cast<size_t>(n * rows));
    ActivationBuffer buffer(isa, n, cols);
    const size_t used = n > 16 ? std::max<size_t>(1, copies.size() / 8) : copies.size();
    const double time = median_seconds(5, [&] {
      team.run([&](TeamMember& member) {
        buffer.prepare(member, copies[0].form(), x.data(), n, cols, cols);
        for (size_t i = 0; i < used; ++i) {
          member.barrier();
          matmul(member, copies[i], buffer, n, y.data(), rows, Store::assign);
        }
      });
    });
    const auto count = static_cast<double>(used);
    const double read = count * static_cast<double>(copies[0].bytes()) / time;
    const double ops = count * 2.0 * static_cast<double>(rows * cols * n) / time;
    const double peak = peak_of(rates, copies[0].form());
    const std::string what = fmt::format("{} {}x{} n={}", to_string(type), rows, cols, n);
    if (read / rates.read_bytes_per_second > ops / peak)
      report(what, read, rates.read_bytes_per_second, "GB/s");
    else
      report(what, ops, peak, "Gop/s");
  }
}

// Decode reads memory, so the layers of a model whose caches together exceed the CPU's are taken in
// turn; prefill of a whole prompt repeats one.
void bench_attention(Isa isa, Team& team, const MachineRates& rates, const ModelShape& model,
                     DType type, int32_t context, int32_t num_tokens) {
  const int32_t num_blocks = (context + kKvBlockTokens - 1) / kKvBlockTokens;
  const int64_t layer_bytes = num_blocks * kv_block_bytes(type, model.num_kv_heads, model.head_dim);
  const int64_t num_layers = num_tokens > 1 ? 1 : std::max<int64_t>(1, kColdBytes / layer_bytes);
  AlignedBuffer pool(static_cast<size_t>(num_layers * layer_bytes));
  std::vector<KvBlockId> table;
  for (int32_t i = 0; i < num_blocks; ++i) table.push_back(KvBlockId(i));
  const int64_t q_cols = int64_t{model.num_heads} * model.head_dim;
  const int64_t kv_cols = int64_t{model.num_kv_heads} * model.head_dim;
  const auto k = random_floats(context * kv_cols);
  const auto q = random_floats(num_tokens * q_cols);
  std::vector<float> out(q.size());
  std::vector<float> scratch(
      static_cast<size_t>(attention_scratch_floats(team.size(), context, model.head_dim)));
  const std::vector<AttentionSlice> fill = {{0, context, 0, table}};
  const std::vector<AttentionSlice> slices = {{0, num_tokens, context - num_tokens, table}};
  const auto layer = [&](int64_t i) {
    return KvLayer{pool.data() + i * layer_bytes, type, num_blocks, model.num_kv_heads,
                   model.head_dim};
  };
  const auto fill_all = [&](TeamMember& member) {
    for (int64_t i = 0; i < num_layers; ++i)
      append_kv(isa, member, layer(i), fill, k.data(), k.data(), kv_cols);
  };
  team.run(fill_all);
  const double fill_time = median_seconds(3, [&] { team.run(fill_all); });
  const double time =
      median_seconds(5,
                     [&] {
                       team.run([&](TeamMember& member) {
                         for (int64_t i = 0; i < num_layers; ++i) {
                           attention(isa, member, layer(i), slices, model.num_heads, 0.125f,
                                     q.data(), q_cols, out.data(), q_cols, scratch);
                           member.barrier();
                         }
                       });
                     }) /
      static_cast<double>(num_layers);
  double keys = 0;
  for (int32_t t = 0; t < num_tokens; ++t) keys += context - num_tokens + t + 1;
  const double ops = keys * static_cast<double>(q_cols) * 4;
  // int8: half of the multiply-adds are those of the values, which take two each.
  const double peak = type == DType::bf16   ? rates.bf16_ops_per_second
                      : type == DType::int8 ? rates.int8_ops_per_second / 1.5
                                            : rates.f32_ops_per_second;
  const auto bytes = static_cast<double>(layer_bytes);
  const std::string what =
      fmt::format("attention {} context {} tokens {}", to_string(type), context, num_tokens);
  if (num_tokens > 1 || ops / peak > bytes / rates.read_bytes_per_second)
    report(what, ops / time, peak, "Gop/s");
  else
    report(what, bytes / time, rates.read_bytes_per_second, "GB/s");
  fmt::print("{:<42} {:>9.2f} us per token and layer; append {:.3f} us\n", "",
             time / num_tokens * 1e6, fill_time / static_cast<double>(num_layers * context) * 1e6);
}

void bench_rows(Isa isa, Team& team, const ModelShape& model, int64_t n) {
  auto x = random_floats(n * model.ff);
  const auto up = random_floats(n * model.ff);
  const auto weight = random_floats(model.ff);
  const auto turns = random_floats(n * model.head_dim);
  std::vector<float> out(x.size());
  ActivationBuffer buffer(isa, n, model.ff);
  const auto time_of = [&](const char* what, const std::function<void(TeamMember&)>& work) {
    const double time = median_seconds(7, [&] {
      team.run([&](TeamMember& member) {
        for (int i = 0; i < 10; ++i) work(member);
      });
    });
    fmt::print("{:<42} {:>9.3f} us per token\n", fmt::format("{} n={}", what, n),
               time / 10 / static_cast<double>(n) * 1e6);
  };
  time_of("rms_norm hidden", [&](TeamMember& member) {
    const Range mine = share_of(member, n, 1);
    for (int64_t t = mine.begin; t < mine.end; ++t)
      rms_norm(isa, x.data() + t * model.hidden, weight.data(), 1e-5f, model.hidden,
               out.data() + t * model.hidden);
  });
  time_of("silu_mul ff", [&](TeamMember& member) {
    const Range mine = share_of(member, n * model.ff, 16);
    silu_mul(isa, x.data() + mine.begin, up.data() + mine.begin, mine.end - mine.begin,
             out.data() + mine.begin);
  });
  time_of("rope q", [&](TeamMember& member) {
    const int64_t q_cols = int64_t{model.num_heads} * model.head_dim;
    const Range mine = share_of(member, n, 1);
    for (int64_t t = mine.begin; t < mine.end; ++t)
      rope(isa, out.data() + t * q_cols, {0, q_cols}, model.head_dim, model.head_dim,
           turns.data() + t * model.head_dim, RopePairs::adjacent);
  });
  time_of("prepare int8 hidden", [&](TeamMember& member) {
    buffer.prepare(member, ActivationForm::int8, x.data(), n, model.hidden, model.hidden);
  });
  time_of("barrier", [&](TeamMember& member) { member.barrier(); });
}

int run(int argc, char** argv) {
  int num_threads = 1;
  std::string type_name = "q4_1";
  std::string model_name = kSmol.name;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i];
    if (key == "--threads") num_threads = std::atoi(argv[i + 1]);
    if (key == "--type") type_name = argv[i + 1];
    if (key == "--model") model_name = argv[i + 1];
  }
  const auto type = dtype_from_name(type_name);
  const char* forced = std::getenv("CHAINPUMP_ISA");
  const auto isa = choose_isa(forced == nullptr ? "" : forced);
  if (!type || !isa.ok() || num_threads < 1) {
    fmt::print(stderr, "kernel_bench: unknown type, instruction set or thread count\n");
    return 2;
  }
  const ModelShape& model = model_name == kLlama8b.name ? kLlama8b : kSmol;
  std::vector<int> cores;
  for (int i = 0; i < num_threads; ++i) cores.push_back(i);
  Team team({.num_threads = num_threads, .cores = cores});
  const double start = seconds();
  const MachineRates rates = measure_machine(*isa, team);
  fmt::print(
      "{} {} threads {}: read {:.1f} GB/s, int8 {:.0f}, bf16 {:.0f}, f32 {:.0f} Gop/s "
      "(measured in {:.0f} ms)\n",
      model.name, to_string(*isa), num_threads, rates.read_bytes_per_second / 1e9,
      rates.int8_ops_per_second / 1e9, rates.bf16_ops_per_second / 1e9,
      rates.f32_ops_per_second / 1e9, (seconds() - start) * 1e3);
  const int64_t q_cols = int64_t{model.num_heads} * model.head_dim;
  const int64_t kv_cols = int64_t{model.num_kv_heads} * model.head_dim;
  bench_product(*isa, team, rates, *type, q_cols, model.hidden);
  bench_product(*isa, team, rates, *type, kv_cols, model.hidden);
  bench_product(*isa, team, rates, *type, model.ff, model.hidden);
  bench_product(*isa, team, rates, *type, model.hidden, model.ff);
  if (model.name == kSmol.name) bench_product(*isa, team, rates, DType::q8_0, 49152, model.hidden);
  for (const DType kv_type : {DType::f32, DType::bf16, DType::f16, DType::int8}) {
    for (const int32_t context : {512, 4096})
      bench_attention(*isa, team, rates, model, kv_type, context, 256);
    for (const int32_t context : {128, 8192})
      bench_attention(*isa, team, rates, model, kv_type, context, 1);
  }
  bench_rows(*isa, team, model, 1);
  bench_rows(*isa, team, model, 256);
  return 0;
}

}  // namespace
}  // namespace chainpump::kernels::cpu

int main(int argc, char** argv) { return chainpump::kernels::cpu::run(argc, argv); }
