#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/reference.h"

namespace chainpump::kernels::cpu {

const KernelTable& reference_table() {
  static constexpr KernelTable kTable = {reference::quantize_row,    reference::quantize_row_int16,
                                         reference::spread_row_f32,  reference::round_row_bf16,
                                         reference::matmul_int8,     reference::matmul_f32,
                                         reference::matmul_bf16,     reference::attention_tile,
                                         reference::attention_merge, reference::append_kv,
                                         reference::rms_norm_row,    reference::rope_turns,
                                         reference::rope_turn,       reference::silu_mul,
                                         reference::argmax,          reference::shift_scale,
                                         reference::sum_exp,         reference::band_sums,
                                         reference::select,          reference::read_sweep,
                                         reference::spin_int8,       reference::spin_f32,
                                         reference::spin_bf16};
  return kTable;
}

const KernelTable& avx2_table() {
  static constexpr KernelTable kTable = {avx2::quantize_row,
                                         avx2::quantize_row_int16,
                                         reference::spread_row_f32,
                                         reference::round_row_bf16,
                                         avx2::matmul_int8,
                                         avx2::matmul_f32,
                                         avx2::matmul_bf16,
                                         avx2::attention_tile,
                                         avx2::attention_merge,
                                         reference::append_kv,
                                         avx2::rms_norm_row,
                                         avx2::rope_turns,
                                         avx2::rope_turn,
                                         avx2::silu_mul,
                                         avx2::argmax,
                                         avx2::shift_scale,
                                         avx2::sum_exp,
                                         avx2::band_sums,
                                         avx2::select,
                                         avx2::read_sweep,
                                         avx2::spin_int8,
                                         avx2::spin_f32,
                                         avx2::spin_bf16};
  return kTable;
}

const KernelTable& avx512_table() {
  static constexpr KernelTable kTable = {avx512::quantize_row,
                                         avx512::quantize_row_int16,
                                         reference::spread_row_f32,
                                         avx512::round_row_bf16,
                                         avx512::matmul_int8,
                                         avx512::matmul_f32,
                                         avx512::matmul_bf16,
                                         avx512::attention_tile,
                                         avx512::attention_merge,
                                         avx512::append_kv,
                                         avx512::rms_norm_row,
                                         avx512::rope_turns,
                                         avx512::rope_turn,
                                         avx512::silu_mul,
                                         avx512::argmax,
                                         avx512::shift_scale,
                                         avx512::sum_exp,
                                         avx512::band_sums,
                                         avx512::select,
                                         avx512::read_sweep,
                                         avx512::spin_int8,
                                         avx512::spin_f32,
                                         avx512::spin_bf16};
  return kTable;
}

const KernelTable& kernel_table(Isa isa) {
  switch (isa) {
    case Isa::reference:
      return reference_table();
    case Isa::avx2:
      return avx2_table();
    case Isa::avx512:
      return avx512_table();
  }
  return reference_table();
}

}  // namespace chainpump::kernels::cpu
