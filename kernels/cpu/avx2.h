// The AVX2 kernels (AVX2, FMA, F16C), to be called only where the machine has them. Their files are
// compiled with those flags: they share no inline function with generic code. What is not here is
// taken from the reference (dispatch.cc). Signatures as in dispatch.h. Pure; any thread.
#pragma once

#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/layout.h"

namespace chainpump::kernels::cpu::avx2 {

void quantize_row(const float* x, int64_t num_blocks, int64_t step, int8_t* quants,
                  ActivationMeta* metas);
void quantize_row_int16(const float* x, int64_t num_blocks, int64_t step, int8_t* quants,
                        ActivationMeta* metas);
void matmul_int8(const PanelView& w, const Int8View& x, int64_t first, int64_t last,
                 const Output& y);
void matmul_f32(const PanelView& w, const F32View& x, int64_t first, int64_t last, const Output& y);
void matmul_bf16(const PanelView& w, const Bf16View& x, int64_t first, int64_t last,
                 const Output& y);
void attention_tile(const AttentionTile& tile);
void attention_merge(const AttentionTile& tile, int first_query, int last_query);
void rms_norm_row(const float* x, const float* weight, float eps, int64_t cols, float* out);
void rope_turns(int32_t position, const float* frequencies, int64_t count, float magnitude,
                float* cos, float* sin);
void rope_turn(float* a, float* b, int64_t step, const float* cos, const float* sin, int64_t count);
void silu_mul(const float* gate, const float* up, int64_t count, float* out);
int64_t argmax(const float* values, int64_t count);
void shift_scale(float* values, int64_t count, float shift, float factor);
double sum_exp(const float* values, int64_t count, float largest);
void band_sums(const float* values, int64_t count, float top, float bands_per_unit, double* lanes);
int64_t select(const float* values, int64_t count, float above, float up_to, int32_t* indices);
uint64_t read_sweep(const std::byte* data, int64_t bytes);
int64_t spin_int8(int64_t rounds);
int64_t spin_f32(int64_t rounds);
int64_t spin_bf16(int64_t rounds);

}  // namespace chainpump::kernels::cpu::avx2
