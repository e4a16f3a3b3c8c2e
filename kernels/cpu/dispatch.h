// The kernels of one instruction set as a table of plain functions over raw views. The public entry
// points share out the work, then call through it; tests call variants directly. A table lives as
// long as the program. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/bands.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/layout.h"

namespace chainpump::kernels::cpu {

struct KernelTable {
  /// One row of `num_blocks` blocks of 32; block b goes to quants + b * step * 32, metas + b *
  /// step.
  void (*quantize_row)(const float* x, int64_t num_blocks, int64_t step, int8_t* quants,
                       ActivationMeta* metas);
  /// The same to 16 bits: block b goes to quants + b * step * 64, 32 high bytes, then 32 low.
  void (*quantize_row_int16)(const float* x, int64_t num_blocks, int64_t step, int8_t* quants,
                             ActivationMeta* metas);
  /// One row of `cols` values to out[c * step], and to bf16 pairs (odd cols: padded with zero).
  void (*spread_row_f32)(const float* x, int64_t cols, int64_t step, float* out);
  void (*round_row_bf16)(const float* x, int64_t cols, int64_t step, uint16_t* out);

  /// Panels [first, last) of w times all tokens of x.
  void (*matmul_int8)(const PanelView& w, const Int8View& x, int64_t first, int64_t last,
                      const Output& y);
  void (*matmul_f32)(const PanelView& w, const F32View& x, int64_t first, int64_t last,
                     const Output& y);
  void (*matmul_bf16)(const PanelView& w, const Bf16View& x, int64_t first, int64_t last,
                      const Output& y);

  void (*attention_tile)(const AttentionTile& tile);
  /// Outputs of queries [first_query, last_query) from the partials of all their steps.
  void (*attention_merge)(const AttentionTile& tile, int first_query, int last_query);
  void (*append_kv)(const KvAppend& append);

  void (*rms_norm_row)(const float* x, const float* weight, float eps, int64_t cols, float* out);
  /// cos and sin of the angles f32(position * frequency), times magnitude.
  void (*rope_turns)(int32_t position, const float* frequencies, int64_t count, float magnitude,
                     float* cos, float* sin);
  /// Turns pairs (a[i * step], b[i * step]): a' = a cos - b sin, b' = a sin + b cos, unfused. step
  /// 2 has b = a + 1.
  void (*rope_turn)(float* a, float* b, int64_t step, const float* cos, const float* sin,
                    int64_t count);
  void (*silu_mul)(const float* gate, const float* up, int64_t count, float* out);
  int64_t (*argmax)(const float* values, int64_t count);
  /// value = (value - shift) * factor.
  void (*shift_scale)(float* values, int64_t count, float shift, float factor);
  /// sum(exp(values - largest)), each exp in f32, in 16 lanes of f64 by index modulo 16, then a
  /// fixed tree: f32 lanes would lose 1e-5 over a large vocabulary.
  double (*sum_exp)(const float* values, int64_t count, float largest);
  /// Adds exp(value), in f32, to lanes[index modulo kBandLanes][band], band = (top - value) *
  /// bands_per_unit cut to a whole number, at most kNumBands - 1 (NaN: that one). No value is above
  /// top.
  void (*band_sums)(const float* values, int64_t count, float top, float bands_per_unit,
                    double* lanes);
  /// Indices of the values in (above, up_to], ascending, to indices [count]; how many. Never NaN.
  int64_t (*select)(const float* values, int64_t count, float above, float up_to, int32_t* indices);

  /// For measure.h: reads all bytes (a multiple of 4 KiB) once, in order, and folds them; and
  /// multiply-adds on registers alone, returning how many operations (2 per multiply-add) it did.
  uint64_t (*read_sweep)(const std::byte* data, int64_t bytes);
  int64_t (*spin_int8)(int64_t rounds);
  int64_t (*spin_f32)(int64_t rounds);
  int64_t (*spin_bf16)(int64_t rounds);
};

const KernelTable& kernel_table(Isa isa);

/// One per instruction set, each in its own files.
const KernelTable& reference_table();
const KernelTable& avx2_table();
const KernelTable& avx512_table();

}  // namespace chainpump::kernels::cpu
