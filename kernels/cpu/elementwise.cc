#include "kernels/cpu/elementwise.h"

#include <vector>

#include "base/check.h"
#include "kernels/cpu/dispatch.h"

namespace chainpump::kernels::cpu {

void rms_norm(Isa isa, TeamMember& member, const float* x, const float* weight, float eps,
              int64_t num_tokens, int64_t cols, float* out) {
  const Range mine = share_of(member, num_tokens, 1);
  for (int64_t t = mine.begin; t < mine.end; ++t)
    kernel_table(isa).rms_norm_row(x + t * cols, weight, eps, cols, out + t * cols);
}

void rope(Isa isa, TeamMember& member, float* x, int64_t x_stride,
          std::span<const int32_t> positions, int32_t num_heads, int32_t head_dim,
          std::span<const float> inverse_frequencies, float magnitude, RopePairs pairs) {
  const KernelTable& table = kernel_table(isa);
  const auto half = static_cast<int64_t>(inverse_frequencies.size());
  CHECK_LE(2 * half, head_dim);
  const Range mine = share_of(member, static_cast<int64_t>(positions.size()), 1);
  std::vector<float> turns(static_cast<size_t>(2 * half));
  float* cos = turns.data();
  float* sin = cos + half;
  for (int64_t t = mine.begin; t < mine.end; ++t) {
    table.rope_turns(positions[static_cast<size_t>(t)], inverse_frequencies.data(), half, magnitude,
                     cos, sin);
    for (int32_t head = 0; head < num_heads; ++head) {
      float* at = x + t * x_stride + int64_t{head} * head_dim;
      if (pairs == RopePairs::adjacent)
        table.rope_turn(at, at + 1, 2, cos, sin, half);
      else
        table.rope_turn(at, at + half, 1, cos, sin, half);
    }
  }
}

void silu_mul(Isa isa, TeamMember& member, const float* gate, const float* up, int64_t num_tokens,
              int64_t cols, float* out) {
  const Range mine = share_of(member, num_tokens * cols, 16);
  kernel_table(isa).silu_mul(gate + mine.begin, up + mine.begin, mine.end - mine.begin,
                             out + mine.begin);
}

}  // namespace chainpump::kernels::cpu
