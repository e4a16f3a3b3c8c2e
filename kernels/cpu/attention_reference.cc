// Attention for the queries of a tile, one after the other, as attention_tile.h states it.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/half.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/math_scalar.h"
#include "kernels/cpu/reference.h"

namespace chainpump::kernels::cpu::reference {
namespace {

float element(DType type, const std::byte* base, int64_t at) {
  if (type == DType::f32) {
    float value;
    std::memcpy(&value, base + at * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, base + at * 2, 2);
  return type == DType::f16 ? f16_to_float(bits) : bf16_to_float(bits);
}

struct Softmax {
  float largest = -std::numeric_limits<float>::infinity();
  float sum = 0;
  float out[kMaxHeadDim] = {};
};

// Adds the block's first `num_keys` positions to the running softmax of q.
void add_block(const AttentionTile& tile, const float* q, const std::byte* block, int num_keys,
               Softmax* state) {
  const int head_dim = tile.head_dim;
  float p[kKvBlockTokens] = {};
  for (int d = 0; d < head_dim; ++d) {
    const float scaled = q[d] * tile.scale;
    for (int j = 0; j < num_keys; ++j)
      p[j] = std::fma(scaled, element(tile.type, block, d * kKvBlockTokens + j), p[j]);
  }
  float largest = state->largest;
  for (int j = 0; j < num_keys; ++j) largest = p[j] > largest ? p[j] : largest;
  const float correction = exp_scalar(state->largest - largest);
  for (int j = 0; j < num_keys; ++j) p[j] = exp_scalar(p[j] - largest);
  float pairs[16];
  for (int j = 0; j < 16; ++j) pairs[j] = p[j] + p[j + 16];
  state->largest = largest;
  state->sum = std::fma(state->sum, correction, tree_sum_16(pairs));
  const int64_t v = int64_t{head_dim} * kKvBlockTokens;
  for (int d = 0; d < head_dim; ++d) {
    float acc = state->out[d] * correction;
    for (int j = 0; j < num_keys; ++j)
      acc = std::fma(p[j], element(tile.type, block, v + j * head_dim + d), acc);
    state->out[d] = acc;
  }
}

}  // namespace

void attention_tile(const AttentionTile& tile) {
  for (int i = 0; i < tile.num_queries; ++i) {
    Softmax state;
    const int num_keys = tile.position[i] + 1;
    for (int begin = 0; begin < num_keys; begin += kKvBlockTokens) {
      const std::byte* block =
          tile.head_data + tile.block_table[begin / kKvBlockTokens] * tile.block_stride;
      add_block(tile, tile.q[i], block, std::min(kKvBlockTokens, num_keys - begin), &state);
    }
    const float inverse = 1.0f / state.sum;
    for (int d = 0; d < tile.head_dim; ++d) tile.out[i][d] = state.out[d] * inverse;
  }
}

}  // namespace chainpump::kernels::cpu::reference
