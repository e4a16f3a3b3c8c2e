// One transformer layer over a microbatch, written for a team: every member runs the same function
// on its share and they meet at barriers. Each row's arithmetic is its own (one law); which member
// computes what never shows in a bit.
//
// Barriers are few, because each costs a decode step about as much as the small operations between
// the products: a member goes on with the columns that it has just computed (rotation after Q and
// K, SiLU and conversion after gate and up), and with one token every member computes the norm and
// the conversion for itself.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/team.h"
#include "models/lazy_memory.h"
#include "models/llama/config.h"
#include "models/llama/weights.h"
#include "models/stage_executor.h"

namespace chainpump::models {

/// What one member has to itself: a row, and the converted activations of one token.
class MemberScratch {
 public:
  MemberScratch(kernels::cpu::Isa isa, int64_t max_cols, int64_t feed_forward)
      : row_(static_cast<size_t>(std::max(max_cols, feed_forward)) * sizeof(float)),
        activations_(isa, 1, max_cols) {}

  float* row() { return reinterpret_cast<float*>(row_.data()); }  // [max_cols or feed_forward]
  kernels::cpu::ActivationBuffer& activations() { return activations_; }

 private:
  kernels::cpu::AlignedBuffer row_;
  kernels::cpu::ActivationBuffer activations_;
};

/// Working memory of a stage, sized once for its largest microbatch. Rows are contiguous f32.
class LayerScratch {
 public:
  static Result<LayerScratch> create(const LlamaConfig& config, const StageSpec& spec,
                                     kernels::cpu::Isa isa);

  float* turns() { return at(turns_); }          // [max_tokens, rotary_dim], see rope_turns()
  float* qkv() { return at(qkv_); }              // [max_tokens, q_size + 2 * kv_size]
  float* attention() { return at(attention_); }  // [max_tokens, q_size]
  float* gate() { return at(gate_); }          // max_tokens * feed_forward floats, cut by members:
  float* up() { return at(up_); }              // a member's part is [tokens, columns taken at once]
  float* residual() { return at(residual_); }  // [max_tokens, hidden]
  std::span<float> attention_steps() { return {at(attention_steps_), attention_steps_floats_}; }
  /// What the products read: of a normed row or attention's, and of the feed-forward's inside.
  kernels::cpu::ActivationBuffer& outer() { return *outer_; }
  kernels::cpu::ActivationBuffer& inner() { return *inner_; }
  MemberScratch& of(const kernels::cpu::TeamMember& member) {
    return *members_[static_cast<size_t>(member.index())];
  }

 private:
  float* at(int64_t offset) { return reinterpret_cast<float*>(memory_.data()) + offset; }

  LazyMemory memory_;
  int64_t turns_ = 0;
  int64_t qkv_ = 0;
  int64_t attention_ = 0;
  int64_t gate_ = 0;
  int64_t up_ = 0;
  int64_t residual_ = 0;
  std::unique_ptr<kernels::cpu::ActivationBuffer> outer_;
  std::unique_ptr<kernels::cpu::ActivationBuffer> inner_;
  std::vector<std::unique_ptr<MemberScratch>> members_;
  int64_t attention_steps_ = 0;
  size_t attention_steps_floats_ = 0;
};

/// What all layers of one microbatch share.
struct LayerInput {
  kernels::cpu::Isa isa;
  const LlamaConfig* config;
  std::span<const kernels::cpu::AttentionSlice> slices;
  std::span<const kernels::cpu::AttentionSlice> written;  // the same without positions held already
  int64_t num_tokens;
};

/// Fills scratch.turns() for the microbatch's positions, each member its rows; a barrier must
/// follow before a layer runs.
void compute_turns(const kernels::cpu::TeamMember& member, kernels::cpu::Isa isa,
                   const RopeTable& rope, std::span<const int32_t> positions,
                   LayerScratch& scratch);

/// x [num_tokens, hidden] += attention, then += feed-forward; K and V go into `kv`. Every member
/// calls it; a barrier stands at its end.
void run_layer(kernels::cpu::TeamMember& member, const LayerInput& input,
               const LayerWeights& weights, const kernels::cpu::KvLayer& kv, LayerScratch& scratch,
               float* x);

}  // namespace chainpump::models
