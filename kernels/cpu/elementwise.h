// Row-wise operations of the transformer block, f32 [num_tokens, ...]. Every member of the team
// calls each with the same arguments and handles its share of the rows; no barrier inside. Each
// row's arithmetic is independent of the others (one law). exp, sin and cos are our own
// (kernels/cpu/math.h).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/team.h"

namespace chainpump::kernels::cpu {

/// out = x / sqrt(mean(x^2) + eps) * weight. x, out: [num_tokens, cols], may be the same.
void rms_norm(Isa isa, TeamMember& member, const float* x, const float* weight, float eps,
              int64_t num_tokens, int64_t cols, float* out);

/// Which elements of a head RoPE rotates together. GGUF files of the llama architecture store Q and
/// K permuted for adjacent pairs; other families (qwen2) use halves.
enum class RopePairs : uint8_t { adjacent, halves };

/// Rotates x [num_tokens, num_heads, head_dim] (row stride x_stride) in place. positions:
/// [num_tokens]; inverse_frequencies: [rotary_dim / 2] f32 with any scaling already applied;
/// magnitude multiplies the result (YaRN's attention factor; else 1). Dimensions past rotary_dim
/// stay as they are.
void rope(Isa isa, TeamMember& member, float* x, int64_t x_stride,
          std::span<const int32_t> positions, int32_t num_heads, int32_t head_dim,
          std::span<const float> inverse_frequencies, float magnitude, RopePairs pairs);

/// out = silu(gate) * up, [num_tokens, cols], rows contiguous; out may be gate.
void silu_mul(Isa isa, TeamMember& member, const float* gate, const float* up, int64_t num_tokens,
              int64_t cols, float* out);

}  // namespace chainpump::kernels::cpu
