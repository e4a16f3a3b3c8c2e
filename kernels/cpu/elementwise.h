// Row-wise operations of the transformer block on f32. Each works on what the caller gives it and
// knows no team: members give their shares, with no barrier where they go on with what is theirs.
// Each row's arithmetic is independent of the others (one law). exp, sin and cos are our own
// (kernels/cpu/math.h). Pure; any thread.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/team.h"

namespace chainpump::kernels::cpu {

/// One row: out = x / sqrt(mean(x^2) + eps) * weight. x, out: [cols], may be the same.
void rms_norm(Isa isa, const float* x, const float* weight, float eps, int64_t cols, float* out);

/// Which elements of a head RoPE rotates together. GGUF files of the llama architecture store Q and
/// K permuted for adjacent pairs; other families (qwen2) use halves.
enum class RopePairs : uint8_t { adjacent, halves };

/// One position's turns: cos, then sin, each [rotary_dim / 2], of position * inverse_frequencies
/// (any scaling already applied), both times magnitude (YaRN's attention factor; else 1).
/// turns: [rotary_dim].
void rope_turns(Isa isa, int32_t position, std::span<const float> inverse_frequencies,
                float magnitude, float* turns);

/// Turns columns `part` of one row of heads side by side (column 0 begins a head), in place. With
/// adjacent pairs `part` begins and ends at even columns, with halves at whole heads. Dimensions
/// past rotary_dim stay as they are. row: column part.begin and on.
void rope(Isa isa, float* row, Range part, int32_t head_dim, int32_t rotary_dim, const float* turns,
          RopePairs pairs);

/// out = silu(gate) * up, [count]; out may be gate.
void silu_mul(Isa isa, const float* gate, const float* up, int64_t count, float* out);

}  // namespace chainpump::kernels::cpu
