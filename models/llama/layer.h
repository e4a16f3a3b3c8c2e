// One transformer layer over a microbatch, written for a team: every member runs the same function
// on its share and they meet at barriers. Each row's arithmetic is its own (one law); which member
// computes what never shows in a bit.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/team.h"
#include "models/lazy_memory.h"
#include "models/llama/config.h"
#include "models/llama/weights.h"

namespace chainpump::models {

/// Working memory of a stage, sized once for its largest microbatch. Rows are contiguous f32.
class LayerScratch {
 public:
  static Result<LayerScratch> create(const LlamaConfig& config, int32_t max_tokens,
                                     kernels::cpu::Isa isa);

  float* normed() { return at(normed_); }        // [max_tokens, hidden]
  float* qkv() { return at(qkv_); }              // [max_tokens, q_size + 2 * kv_size]
  float* attention() { return at(attention_); }  // [max_tokens, q_size]
  float* gate() { return at(gate_); }            // [max_tokens, feed_forward]
  float* up() { return at(up_); }                // [max_tokens, feed_forward]
  float* residual() { return at(residual_); }    // [max_tokens, hidden]
  kernels::cpu::ActivationBuffer& activations() { return *activations_; }

 private:
  float* at(int64_t offset) { return reinterpret_cast<float*>(memory_.data()) + offset; }

  LazyMemory memory_;
  int64_t normed_ = 0;
  int64_t qkv_ = 0;
  int64_t attention_ = 0;
  int64_t gate_ = 0;
  int64_t up_ = 0;
  int64_t residual_ = 0;
  std::unique_ptr<kernels::cpu::ActivationBuffer> activations_;
};

/// What all layers of one microbatch share.
struct LayerInput {
  kernels::cpu::Isa isa;
  const LlamaConfig* config;
  const RopeTable* rope;
  std::span<const kernels::cpu::AttentionSlice> slices;
  std::span<const int32_t> positions;  // [num_tokens]
};

/// x [num_tokens, hidden] += attention, then += feed-forward; K and V go into `kv`. Every member
/// calls it; a barrier stands at its end.
void run_layer(kernels::cpu::TeamMember& member, const LayerInput& input,
               const LayerWeights& weights, const kernels::cpu::KvLayer& kv, LayerScratch& scratch,
               float* x);

}  // namespace chainpump::models
