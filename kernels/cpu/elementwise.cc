#include "kernels/cpu/elementwise.h"

#include <vector>

#include "base/check.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/math.h"

namespace chainpump::kernels::cpu {

void rms_norm(Isa isa, TeamMember& member, const float* x, const float* weight, float eps,
              int64_t num_tokens, int64_t cols, float* out) {
  const Range mine = share_of(member, num_tokens, 1);
  for (int64_t t = mine.begin; t < mine.end; ++t)
    kernel_table(isa).rms_norm_row(x + t * cols, weight, eps, cols, out + t * cols);
}

namespace {

// Two products and a sum each, unfused, the same in every build.
void rotate_head(float* head, const SinCos* turns, int32_t half, int32_t first_step,
                 int32_t second_at) {
  for (int32_t i = 0; i < half; ++i) {
    float& a = head[i * first_step];
    float& b = head[i * first_step + second_at];
    const float rotated = a * turns[i].cos - b * turns[i].sin;
    b = a * turns[i].sin + b * turns[i].cos;
    a = rotated;
  }
}

}  // namespace

void rope(Isa isa, TeamMember& member, float* x, int64_t x_stride,
          std::span<const int32_t> positions, int32_t num_heads, int32_t head_dim,
          std::span<const float> inverse_frequencies, float magnitude, RopePairs pairs) {
  static_cast<void>(isa);  // one form for all; the compiler's vectors cannot change its bits
  const auto half = static_cast<int32_t>(inverse_frequencies.size());
  CHECK_LE(2 * half, head_dim);
  const Range mine = share_of(member, static_cast<int64_t>(positions.size()), 1);
  std::vector<SinCos> turns(static_cast<size_t>(half));
  for (int64_t t = mine.begin; t < mine.end; ++t) {
    const double position = positions[static_cast<size_t>(t)];
    for (int32_t i = 0; i < half; ++i) {
      SinCos& turn = turns[static_cast<size_t>(i)];
      // The angle is rounded to f32 first, as the oracle does.
      const auto angle = static_cast<float>(
          position * static_cast<double>(inverse_frequencies[static_cast<size_t>(i)]));
      turn = sin_cos(static_cast<double>(angle));
      turn.sin *= magnitude;
      turn.cos *= magnitude;
    }
    for (int32_t head = 0; head < num_heads; ++head) {
      float* at = x + t * x_stride + int64_t{head} * head_dim;
      if (pairs == RopePairs::adjacent)
        rotate_head(at, turns.data(), half, 2, 1);
      else
        rotate_head(at, turns.data(), half, 1, half);
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
