// The measurements behind `chainpump bench kernels`: one operation on one shape, with the bound
// that applies to it. A figure is the median of a few runs; everything is allocated outside the
// clock. Call from the thread that owns the team.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/measure.h"
#include "kernels/cpu/team.h"

namespace chainpump::cli {

struct KernelFigure {
  std::string operation;
  DType type = DType::f32;  // of weights, or of the KV cache
  std::string shape;        // rows x cols of weights, tokens of context, or columns of a row
  int64_t num_tokens = 0;
  double achieved = 0;
  double bound = 0;       // 0: none, as the rows lie in the caches
  const char* unit = "";  // GB/s of packed weights or KV, Gop/s (two per multiply-add), us/token
  double gops = 0;        // of a product in any case: what other programs' figures are in
};

struct KernelBench {
  kernels::cpu::Isa isa;
  kernels::cpu::Team* team;
};

/// A product with weights [rows, cols] of `type` for each count in `tokens`, by the bound that is
/// nearer: reading the weights or multiplying. Few tokens: matrices side by side, together larger
/// than the caches; rows beyond 64 MB of weights are left out, as each panel of rows is on its own.
/// Many tokens (over 64): one matrix of at most 2,048 rows.
std::vector<KernelFigure> measure_product(const KernelBench& bench,
                                          const kernels::cpu::MachineRates& rates,
                                          const std::string& operation, DType type, int64_t rows,
                                          int64_t cols, const std::vector<int64_t>& tokens);

struct LayerShape {
  int64_t hidden = 0;
  int64_t feed_forward = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
};

/// One layer's attention of the last `num_tokens` of a sequence of `context`. One token reads a KV
/// cache of many layers from memory, several share a cache of one layer.
KernelFigure measure_attention(const KernelBench& bench, const kernels::cpu::MachineRates& rates,
                               const LayerShape& shape, DType type, int32_t context,
                               int32_t num_tokens);

/// Norm, activation function, rotation, conversion of activations: microseconds per token.
std::vector<KernelFigure> measure_rows(const KernelBench& bench, const LayerShape& shape,
                                       int64_t num_tokens);

/// Choosing one token by one thread from flat logits, the worst case: microseconds. The bound is 2
/// % of the time in which the team reads the `step_bytes` of weights that a decode step needs; here
/// a ratio below 1 is within it.
std::vector<KernelFigure> measure_sampling(const KernelBench& bench,
                                           const kernels::cpu::MachineRates& rates,
                                           int64_t vocabulary, int64_t step_bytes);

}  // namespace chainpump::cli
