#include "models/llama/layer.h"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/math.h"

namespace chainpump::models {
namespace {

using kernels::cpu::ActivationBuffer;
using kernels::cpu::ActivationForm;
using kernels::cpu::kRowGranule;
using kernels::cpu::Range;
using kernels::cpu::Store;
using kernels::cpu::TeamMember;

// Members share columns in pieces that every activation form can be converted in.
constexpr int64_t kColumnGranule = 32;
static_assert(kColumnGranule % kRowGranule == 0);
// Of gate, and as many of up: what both come to stays in L2 beside the activations.
constexpr int64_t kPieceFloats = 65536;

using Projections = std::initializer_list<const Projection*>;

/// Columns `part` of one row, converted to each form that one of `projections` reads, once.
void convert_for(Projections projections, const float* row, int64_t token, int64_t num_tokens,
                 int64_t cols, Range part, ActivationBuffer& buffer) {
  std::array<bool, kernels::cpu::kNumActivationForms> done{};
  for (const Projection* projection : projections) {
    const ActivationForm form = projection->matrix.form();
    bool& seen = done[static_cast<size_t>(form)];
    if (!seen) buffer.convert(form, row, token, num_tokens, cols, part);
    seen = true;
  }
}

/// Converts `make_row(token)` [cols] of every token for `projections`: one token by each member for
/// itself, which is quicker than a barrier; more are shared, with a barrier. What to read then.
template <typename MakeRow>
const ActivationBuffer& convert_rows(TeamMember& member, Projections projections, MakeRow make_row,
                                     int64_t num_tokens, int64_t cols, LayerScratch& scratch) {
  if (num_tokens == 1) {
    ActivationBuffer& own = scratch.of(member).activations();
    convert_for(projections, make_row(0), 0, 1, cols, {0, cols}, own);
    return own;
  }
  const Range mine = share_of(member, num_tokens, 1);
  for (int64_t t = mine.begin; t < mine.end; ++t)
    convert_for(projections, make_row(t), t, num_tokens, cols, {0, cols}, scratch.outer());
  member.barrier();
  return scratch.outer();
}

/// The same of x's rows after the norm.
const ActivationBuffer& norm_rows(TeamMember& member, const LayerInput& input,
                                  const std::vector<float>& weight, Projections projections,
                                  const float* x, LayerScratch& scratch) {
  const int64_t hidden = input.config->hidden_size;
  float* row = scratch.of(member).row();
  const auto normed = [&](int64_t t) {
    rms_norm(input.isa, x + t * hidden, weight.data(), input.config->rms_epsilon, hidden, row);
    return row;
  };
  return convert_rows(member, projections, normed, input.num_tokens, hidden, scratch);
}

/// y [num_tokens, part] += bias of columns `part`. Nothing to do for most files.
void add_bias(const std::vector<float>& bias, int64_t num_tokens, Range part, float* y,
              int64_t y_stride) {
  if (bias.empty()) return;
  for (int64_t t = 0; t < num_tokens; ++t)
    for (int64_t i = part.begin; i < part.end; ++i)
      y[t * y_stride + i - part.begin] += bias[static_cast<size_t>(i)];
}

/// y [num_tokens, part] = columns `part` of projection(x), bias added.
void project(const Projection& projection, const ActivationBuffer& x, int64_t num_tokens,
             Range part, float* y, int64_t y_stride, Store store = Store::assign) {
  matmul_rows(projection.matrix, x, num_tokens, part, y, y_stride, store);
  add_bias(projection.bias, num_tokens, part, y, y_stride);
}

/// x += projection(converted activations).
void project_onto(TeamMember& member, const Projection& projection,
                  const ActivationBuffer& activations, int64_t num_tokens, int64_t hidden,
                  float* x) {
  const Range mine = share_of(member, hidden, kRowGranule);
  project(projection, activations, num_tokens, mine, x + mine.begin, hidden, Store::add);
  member.barrier();
}

/// Turns columns `part` of Q or K of every token.
void rotate(const LayerInput& input, Range part, float* heads, int64_t stride, const float* turns) {
  if (part.begin == part.end) return;
  const LlamaConfig& config = *input.config;
  const int32_t rotary_dim = config.rope.rotary_dim;
  for (int64_t t = 0; t < input.num_tokens; ++t)
    rope(input.isa, heads + t * stride + part.begin, part, config.head_dim, rotary_dim,
         turns + t * rotary_dim, kernels::cpu::RopePairs::adjacent);
}

/// Q, K and V side by side, Q and K turned. Members share the rows of the three as if they were
/// one matrix, each by what it costs.
void project_qkv(const TeamMember& member, const LayerInput& input, const LayerWeights& weights,
                 const ActivationBuffer& normed, LayerScratch& scratch) {
  const LlamaConfig& config = *input.config;
  const int64_t stride = config.q_size() + 2 * config.kv_size();
  struct Part {
    const Projection* projection;
    int64_t size;
    bool turns;
    // Of a granule. Many tokens are bound by multiplying, of which 16 bits take twice as much.
    int64_t cost(int64_t num_tokens) const {
      return num_tokens >= 8 && projection->matrix.form() == ActivationForm::int16 ? 2 : 1;
    }
    int64_t num_granules() const { return (size + kRowGranule - 1) / kRowGranule; }
  };
  const Part parts[] = {{&weights.q, config.q_size(), true},
                        {&weights.k, config.kv_size(), true},
                        {&weights.v, config.kv_size(), false}};
  int64_t total = 0;
  for (const Part& part : parts) total += part.num_granules() * part.cost(input.num_tokens);
  const Range mine = share_of(member, total, 1);
  int64_t before = 0;  // what the parts before cost
  float* y = scratch.qkv();
  for (const Part& part : parts) {
    const int64_t cost = part.cost(input.num_tokens);
    const auto column = [&](int64_t at) {
      return std::clamp<int64_t>((at - before + cost - 1) / cost * kRowGranule, 0, part.size);
    };
    const Range columns{column(mine.begin), column(mine.end)};
    project(*part.projection, normed, input.num_tokens, columns, y + columns.begin, stride);
    if (part.turns) rotate(input, columns, y, stride, scratch.turns());
    before += part.num_granules() * cost;
    y += part.size;
  }
}

void run_attention(TeamMember& member, const LayerInput& input, const LayerWeights& weights,
                   const kernels::cpu::KvLayer& kv, LayerScratch& scratch, float* x) {
  const LlamaConfig& config = *input.config;
  const int64_t n = input.num_tokens;
  const int64_t q_size = config.q_size();
  const int64_t stride = q_size + 2 * config.kv_size();
  const float* q = scratch.qkv();
  const float* k = q + q_size;
  const float* v = k + config.kv_size();

  const ActivationBuffer& normed = norm_rows(member, input, weights.attention_norm,
                                             {&weights.q, &weights.k, &weights.v}, x, scratch);
  project_qkv(member, input, weights, normed, scratch);
  member.barrier();
  append_kv(input.isa, member, kv, input.written, k, v, stride);
  member.barrier();
  const auto scale = static_cast<float>(
      1.0 / __builtin_sqrt(static_cast<double>(config.head_dim)));  // exactly rounded everywhere
  attention(input.isa, member, kv, input.slices, config.num_heads, scale, q, stride,
            scratch.attention(), q_size, scratch.attention_steps());
  member.barrier();
  const ActivationBuffer& attended = convert_rows(
      member, {&weights.o}, [&](int64_t t) { return scratch.attention() + t * q_size; }, n, q_size,
      scratch);
  project_onto(member, weights.o, attended, n, config.hidden_size, x);
}

void run_feed_forward(TeamMember& member, const LayerInput& input, const LayerWeights& weights,
                      LayerScratch& scratch, float* x) {
  const int64_t n = input.num_tokens;
  const int64_t width = input.config->feed_forward_size;
  const ActivationBuffer& normed =
      norm_rows(member, input, weights.ffn_norm, {&weights.gate, &weights.up}, x, scratch);
  // The same columns of gate and up, so that this member alone can go on with them, a piece at a
  // time: what the products write is still near when it is read.
  const Range mine = share_of(member, width, kColumnGranule);
  const int64_t step = std::max(kPieceFloats / n / kColumnGranule, int64_t{1}) * kColumnGranule;
  float* const row = scratch.of(member).row();
  for (Range piece{mine.begin, 0}; piece.begin < mine.end; piece.begin = piece.end) {
    piece.end = std::min(piece.begin + step, mine.end);
    const int64_t columns = piece.end - piece.begin;
    float* const gate = scratch.gate() + mine.begin * n;
    float* const up = scratch.up() + mine.begin * n;
    project(weights.gate, normed, n, piece, gate, columns);
    project(weights.up, normed, n, piece, up, columns);
    for (int64_t t = 0; t < n; ++t) {
      silu_mul(input.isa, gate + t * columns, up + t * columns, columns, row + piece.begin);
      convert_for({&weights.down}, row, t, n, width, piece, scratch.inner());
    }
  }
  member.barrier();
  project_onto(member, weights.down, scratch.inner(), n, input.config->hidden_size, x);
}

}  // namespace

Result<LayerScratch> LayerScratch::create(const LlamaConfig& config, const StageSpec& spec,
                                          kernels::cpu::Isa isa) {
  LayerScratch scratch;
  const int32_t max_tokens = spec.max_microbatch_tokens;
  int64_t floats = 0;
  const auto take = [&](int64_t row_floats) {
    const int64_t offset = floats;
    floats += (row_floats * max_tokens + 63) / 64 * 64;
    return offset;
  };
  scratch.turns_ = take(config.rope.rotary_dim);
  scratch.qkv_ = take(config.q_size() + 2 * config.kv_size());
  scratch.attention_ = take(config.q_size());
  scratch.gate_ = take(config.feed_forward_size);
  scratch.up_ = take(config.feed_forward_size);
  scratch.residual_ = take(config.hidden_size);
  scratch.attention_steps_ = floats;
  scratch.attention_steps_floats_ = static_cast<size_t>(kernels::cpu::attention_scratch_floats(
      spec.num_threads, spec.context_tokens, config.head_dim));
  floats += static_cast<int64_t>(scratch.attention_steps_floats_);
  ASSIGN_OR_RETURN(scratch.memory_,
                   LazyMemory::reserve(floats * static_cast<int64_t>(sizeof(float)), "scratch"));
  const int64_t outer_cols = std::max<int64_t>(config.hidden_size, config.q_size());
  scratch.outer_ = std::make_unique<ActivationBuffer>(isa, max_tokens, outer_cols);
  scratch.inner_ = std::make_unique<ActivationBuffer>(isa, max_tokens, config.feed_forward_size);
  for (int32_t i = 0; i < spec.num_threads; ++i)
    scratch.members_.push_back(
        std::make_unique<MemberScratch>(isa, outer_cols, config.feed_forward_size));
  return scratch;
}

void compute_turns(const TeamMember& member, kernels::cpu::Isa isa, const RopeTable& rope,
                   std::span<const int32_t> positions, LayerScratch& scratch) {
  const auto rotary_dim = 2 * static_cast<int64_t>(rope.inverse_frequencies.size());
  const Range mine = share_of(member, static_cast<int64_t>(positions.size()), 1);
  for (int64_t t = mine.begin; t < mine.end; ++t)
    rope_turns(isa, positions[static_cast<size_t>(t)], rope.inverse_frequencies, rope.magnitude,
               scratch.turns() + t * rotary_dim);
}

void run_layer(TeamMember& member, const LayerInput& input, const LayerWeights& weights,
               const kernels::cpu::KvLayer& kv, LayerScratch& scratch, float* x) {
  run_attention(member, input, weights, kv, scratch, x);
  run_feed_forward(member, input, weights, scratch, x);
}

}  // namespace chainpump::models
