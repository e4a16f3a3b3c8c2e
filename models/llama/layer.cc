#include "models/llama/layer.h"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/math.h"

namespace chainpump::models {
namespace {

using kernels::cpu::ActivationForm;
using kernels::cpu::Store;
using kernels::cpu::TeamMember;

/// Converts `x` to each form that one of `projections` reads, once.
void prepare_for(TeamMember& member, kernels::cpu::ActivationBuffer& buffer,
                 std::initializer_list<const Projection*> projections, const float* x,
                 int64_t num_tokens, int64_t cols) {
  std::array<bool, kernels::cpu::kNumActivationForms> done{};
  for (const Projection* projection : projections) {
    const ActivationForm form = projection->matrix.form();
    bool& seen = done[static_cast<size_t>(form)];
    if (!seen) buffer.prepare(member, form, x, num_tokens, cols, cols);
    seen = true;
  }
}

/// y [num_tokens, bias] += bias, each member its rows. Nothing to do for most files.
void add_bias(const TeamMember& member, const std::vector<float>& bias, int64_t num_tokens,
              float* y, int64_t y_stride) {
  if (bias.empty()) return;
  const kernels::cpu::Range rows = share_of(member, num_tokens, 1);
  for (int64_t t = rows.begin; t < rows.end; ++t) {
    for (size_t i = 0; i < bias.size(); ++i) y[t * y_stride + static_cast<int64_t>(i)] += bias[i];
  }
}

/// x += projection(prepared activations).
void project_onto(TeamMember& member, const Projection& projection, LayerScratch& scratch,
                  int64_t num_tokens, int64_t hidden, float* x) {
  matmul(member, projection.matrix, scratch.activations(), num_tokens, x, hidden, Store::add);
  member.barrier();
  if (projection.bias.empty()) return;
  add_bias(member, projection.bias, num_tokens, x, hidden);
  member.barrier();
}

void run_attention(TeamMember& member, const LayerInput& input, const LayerWeights& weights,
                   const kernels::cpu::KvLayer& kv, LayerScratch& scratch, float* x) {
  const LlamaConfig& config = *input.config;
  const auto n = static_cast<int64_t>(input.positions.size());
  const int64_t hidden = config.hidden_size;
  const int64_t q_size = config.q_size();
  const int64_t kv_size = config.kv_size();
  const int64_t stride = q_size + 2 * kv_size;
  float* q = scratch.qkv();
  float* k = q + q_size;
  float* v = k + kv_size;

  rms_norm(input.isa, member, x, weights.attention_norm.data(), config.rms_epsilon, n, hidden,
           scratch.normed());
  member.barrier();
  prepare_for(member, scratch.activations(), {&weights.q, &weights.k, &weights.v}, scratch.normed(),
              n, hidden);
  member.barrier();
  matmul(member, weights.q.matrix, scratch.activations(), n, q, stride, Store::assign);
  matmul(member, weights.k.matrix, scratch.activations(), n, k, stride, Store::assign);
  matmul(member, weights.v.matrix, scratch.activations(), n, v, stride, Store::assign);
  member.barrier();
  // Biases and rotation share rows among the members in the same way: no barrier between them.
  add_bias(member, weights.q.bias, n, q, stride);
  add_bias(member, weights.k.bias, n, k, stride);
  add_bias(member, weights.v.bias, n, v, stride);
  // Q and K heads lie side by side in a row, so one call turns both.
  rope(input.isa, member, q, stride, input.positions, config.num_heads + config.num_kv_heads,
       config.head_dim, input.rope->inverse_frequencies, input.rope->magnitude,
       kernels::cpu::RopePairs::adjacent);
  member.barrier();
  append_kv(input.isa, member, kv, input.slices, k, v, stride);
  member.barrier();
  const auto scale = static_cast<float>(
      1.0 / __builtin_sqrt(static_cast<double>(config.head_dim)));  // exactly rounded everywhere
  attention(input.isa, member, kv, input.slices, config.num_heads, scale, q, stride,
            scratch.attention(), q_size);
  member.barrier();
  prepare_for(member, scratch.activations(), {&weights.o}, scratch.attention(), n, q_size);
  member.barrier();
  project_onto(member, weights.o, scratch, n, hidden, x);
}

void run_feed_forward(TeamMember& member, const LayerInput& input, const LayerWeights& weights,
                      LayerScratch& scratch, float* x) {
  const LlamaConfig& config = *input.config;
  const auto n = static_cast<int64_t>(input.positions.size());
  const int64_t hidden = config.hidden_size;
  const int64_t width = config.feed_forward_size;
  rms_norm(input.isa, member, x, weights.ffn_norm.data(), config.rms_epsilon, n, hidden,
           scratch.normed());
  member.barrier();
  prepare_for(member, scratch.activations(), {&weights.gate, &weights.up}, scratch.normed(), n,
              hidden);
  member.barrier();
  matmul(member, weights.gate.matrix, scratch.activations(), n, scratch.gate(), width,
         Store::assign);
  matmul(member, weights.up.matrix, scratch.activations(), n, scratch.up(), width, Store::assign);
  member.barrier();
  if (!weights.gate.bias.empty() || !weights.up.bias.empty()) {
    add_bias(member, weights.gate.bias, n, scratch.gate(), width);
    add_bias(member, weights.up.bias, n, scratch.up(), width);
    member.barrier();
  }
  silu_mul(input.isa, member, scratch.gate(), scratch.up(), n, width, scratch.gate());
  member.barrier();
  prepare_for(member, scratch.activations(), {&weights.down}, scratch.gate(), n, width);
  member.barrier();
  project_onto(member, weights.down, scratch, n, hidden, x);
}

}  // namespace

Result<LayerScratch> LayerScratch::create(const LlamaConfig& config, int32_t max_tokens,
                                          kernels::cpu::Isa isa) {
  LayerScratch scratch;
  int64_t floats = 0;
  const auto take = [&](int64_t row_floats) {
    const int64_t offset = floats;
    floats += (row_floats * max_tokens + 63) / 64 * 64;
    return offset;
  };
  scratch.normed_ = take(config.hidden_size);
  scratch.qkv_ = take(config.q_size() + 2 * config.kv_size());
  scratch.attention_ = take(config.q_size());
  scratch.gate_ = take(config.feed_forward_size);
  scratch.up_ = take(config.feed_forward_size);
  scratch.residual_ = take(config.hidden_size);
  ASSIGN_OR_RETURN(scratch.memory_,
                   LazyMemory::reserve(floats * static_cast<int64_t>(sizeof(float)), "scratch"));
  const int64_t max_cols =
      std::max({config.hidden_size, config.q_size(), config.feed_forward_size});
  scratch.activations_ =
      std::make_unique<kernels::cpu::ActivationBuffer>(isa, max_tokens, max_cols);
  return scratch;
}

void run_layer(TeamMember& member, const LayerInput& input, const LayerWeights& weights,
               const kernels::cpu::KvLayer& kv, LayerScratch& scratch, float* x) {
  run_attention(member, input, weights, kv, scratch, x);
  run_feed_forward(member, input, weights, scratch, x);
}

}  // namespace chainpump::models
