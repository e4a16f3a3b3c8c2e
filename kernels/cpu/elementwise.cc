#include "kernels/cpu/elementwise.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/cpu/dispatch.h"

namespace chainpump::kernels::cpu {

void rms_norm(Isa isa, const float* x, const float* weight, float eps, int64_t cols, float* out) {
  kernel_table(isa).rms_norm_row(x, weight, eps, cols, out);
}

void rope_turns(Isa isa, int32_t position, std::span<const float> inverse_frequencies,
                float magnitude, float* turns) {
  const auto half = static_cast<int64_t>(inverse_frequencies.size());
  kernel_table(isa).rope_turns(position, inverse_frequencies.data(), half, magnitude, turns,
                               turns + half);
}

void rope(Isa isa, float* row, Range part, int32_t head_dim, int32_t rotary_dim, const float* turns,
          RopePairs pairs) {
  CHECK_LE(rotary_dim, head_dim);
  const int64_t granule = pairs == RopePairs::adjacent ? 2 : head_dim;
  CHECK(part.begin % granule == 0 && part.end % granule == 0);
  const KernelTable& table = kernel_table(isa);
  const int64_t half = rotary_dim / 2;
  for (int64_t column = part.begin; column < part.end;) {
    const int64_t head = column / head_dim * head_dim;
    float* at = row + (column - part.begin);
    const int64_t first = column - head;  // dimension of the head
    const int64_t last = std::min<int64_t>({part.end - head, head_dim, rotary_dim});
    if (pairs == RopePairs::halves)
      table.rope_turn(at, at + half, 1, turns, turns + half, half);
    else if (first < last)
      table.rope_turn(at, at + 1, 2, turns + first / 2, turns + half + first / 2,
                      (last - first) / 2);
    column = head + head_dim;
  }
}

void silu_mul(Isa isa, const float* gate, const float* up, int64_t count, float* out) {
  kernel_table(isa).silu_mul(gate, up, count, out);
}

}  // namespace chainpump::kernels::cpu
