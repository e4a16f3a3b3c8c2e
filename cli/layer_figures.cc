// Attention and the row-wise operations of a layer, for `chainpump bench kernels`.
#include <fmt/format.h>

#include <algorithm>

#include "cli/kernel_figures.h"
#include "cli/kernel_timing.h"
#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/matmul.h"

namespace chainpump::cli {
namespace {

using namespace kernels::cpu;  // NOLINT: every name below is theirs

constexpr int64_t kColdBytes = int64_t{96} << 20;

/// One model's caches for one sequence of `context` tokens. Decode reads memory, so as many layers
/// as exceed the CPU's caches are taken in turn; prefill of a whole prompt repeats one.
class AttentionBench {
 public:
  AttentionBench(const KernelBench& bench, const LayerShape& shape, DType type, int32_t context,
                 int32_t num_tokens)
      : bench_(bench), shape_(shape), type_(type), context_(context), num_tokens_(num_tokens) {
    num_blocks_ = (context + kKvBlockTokens - 1) / kKvBlockTokens;
    layer_bytes_ = num_blocks_ * kv_block_bytes(type, shape.num_kv_heads, shape.head_dim);
    num_layers_ = num_tokens > 1 ? 1 : std::max<int64_t>(1, kColdBytes / layer_bytes_);
    pool_ = AlignedBuffer(static_cast<size_t>(num_layers_ * layer_bytes_));
    for (int32_t i = 0; i < num_blocks_; ++i) table_.push_back(KvBlockId(i));
  }

  void fill() {
    const int64_t kv_cols = int64_t{shape_.num_kv_heads} * shape_.head_dim;
    const auto k = random_floats(context_ * kv_cols);
    const std::vector<AttentionSlice> slices = {{0, context_, 0, table_}};
    bench_.team->run([&](TeamMember& member) {
      for (int64_t i = 0; i < num_layers_; ++i)
        append_kv(bench_.isa, member, layer(i), slices, k.data(), k.data(), kv_cols);
    });
  }

  /// Seconds for one layer.
  double time() {
    const auto q = random_floats(num_tokens_ * q_cols());
    std::vector<float> out(q.size());
    std::vector<float> scratch(static_cast<size_t>(
        attention_scratch_floats(bench_.team->size(), context_, shape_.head_dim)));
    const std::vector<AttentionSlice> slices = {{0, num_tokens_, context_ - num_tokens_, table_}};
    const double seconds = median_seconds([&] {
      bench_.team->run([&](TeamMember& member) {
        for (int64_t i = 0; i < num_layers_; ++i) {
          attention(bench_.isa, member, layer(i), slices, shape_.num_heads, 0.125f, q.data(),
                    q_cols(), out.data(), q_cols(), scratch);
          member.barrier();
        }
      });
    });
    return seconds / static_cast<double>(num_layers_);
  }

  /// Two per multiply-add, of queries with keys and of weights with values.
  double ops() const {
    double keys = 0;
    for (int32_t t = 0; t < num_tokens_; ++t) keys += context_ - num_tokens_ + t + 1;
    return keys * static_cast<double>(q_cols()) * 4;
  }
  double bytes() const { return static_cast<double>(layer_bytes_); }

 private:
  int64_t q_cols() const { return int64_t{shape_.num_heads} * shape_.head_dim; }
  KvLayer layer(int64_t i) {
    return {pool_.data() + i * layer_bytes_, type_, num_blocks_, shape_.num_kv_heads,
            shape_.head_dim};
  }

  const KernelBench& bench_;
  const LayerShape& shape_;
  DType type_;
  int32_t context_;
  int32_t num_tokens_;
  int32_t num_blocks_ = 0;
  int64_t layer_bytes_ = 0;
  int64_t num_layers_ = 1;
  AlignedBuffer pool_;
  std::vector<KvBlockId> table_;
};

}  // namespace

KernelFigure measure_attention(const KernelBench& bench, const MachineRates& rates,
                               const LayerShape& shape, DType type, int32_t context,
                               int32_t num_tokens) {
  AttentionBench attention(bench, shape, type, context, num_tokens);
  attention.fill();
  const double time = attention.time();
  // int8: half of the multiply-adds are those of the values, which take two each.
  const double peak = type == DType::bf16   ? rates.bf16_ops_per_second
                      : type == DType::int8 ? rates.int8_ops_per_second / 1.5
                                            : rates.f32_ops_per_second;
  const bool reads =
      num_tokens == 1 && attention.bytes() / rates.read_bytes_per_second > attention.ops() / peak;
  return {"attention",
          type,
          fmt::format("context {}", context),
          num_tokens,
          (reads ? attention.bytes() : attention.ops()) / time / 1e9,
          (reads ? rates.read_bytes_per_second : peak) / 1e9,
          reads ? "GB/s" : "Gop/s"};
}

std::vector<KernelFigure> measure_rows(const KernelBench& bench, const LayerShape& shape,
                                       int64_t num_tokens) {
  const int64_t n = num_tokens;
  const int64_t hidden = shape.hidden;
  const int64_t q_cols = int64_t{shape.num_heads} * shape.head_dim;
  const int64_t width = std::max({shape.feed_forward, hidden, q_cols});
  const auto x = random_floats(n * width);
  const auto weight = random_floats(width);
  const auto turns = random_floats(n * shape.head_dim);
  std::vector<float> out(x.size());
  ActivationBuffer buffer(bench.isa, n, width);
  std::vector<KernelFigure> figures;
  const auto add = [&](const char* what, int64_t cols, const auto& work) {
    constexpr int kRepeats = 10;
    const double time = median_seconds([&] {
      bench.team->run([&](TeamMember& member) {
        for (int i = 0; i < kRepeats; ++i) work(member);
      });
    });
    figures.push_back({what, DType::f32, fmt::format("{}", cols), n,
                       time / kRepeats / static_cast<double>(n) * 1e6, 0, "us/token"});
  };
  add("rms_norm", hidden, [&](TeamMember& member) {
    const Range mine = share_of(member, n, 1);
    for (int64_t t = mine.begin; t < mine.end; ++t)
      rms_norm(bench.isa, x.data() + t * hidden, weight.data(), 1e-5f, hidden,
               out.data() + t * hidden);
  });
  add("silu_mul", shape.feed_forward, [&](TeamMember& member) {
    const Range mine = share_of(member, n * shape.feed_forward, 16);
    silu_mul(bench.isa, x.data() + mine.begin, x.data() + mine.begin, mine.end - mine.begin,
             out.data() + mine.begin);
  });
  add("rope", q_cols, [&](TeamMember& member) {
    const Range mine = share_of(member, n, 1);
    for (int64_t t = mine.begin; t < mine.end; ++t)
      rope(bench.isa, out.data() + t * q_cols, {0, q_cols}, shape.head_dim, shape.head_dim,
           turns.data() + t * shape.head_dim, RopePairs::adjacent);
  });
  for (const ActivationForm form : {ActivationForm::int8, ActivationForm::int16})
    add(form == ActivationForm::int8 ? "to int8" : "to int16", hidden,
        [&](TeamMember& member) { buffer.prepare(member, form, x.data(), n, hidden, hidden); });
  return figures;
}

}  // namespace chainpump::cli
