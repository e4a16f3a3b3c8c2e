#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/reference.h"

namespace chainpump::kernels::cpu {

const KernelTable& reference_table() {
  static constexpr KernelTable kTable = {reference::quantize_row, reference::round_row_bf16,
                                         reference::matmul_int8,  reference::matmul_f32,
                                         reference::matmul_bf16,  reference::attention_tile,
                                         reference::rms_norm_row, reference::silu_mul,
                                         reference::argmax,       reference::sum_exp};
  return kTable;
}

const KernelTable& kernel_table(Isa isa) {
  switch (isa) {
    case Isa::reference:
    case Isa::avx2:
    case Isa::avx512:
      break;
  }
  return reference_table();
}

}  // namespace chainpump::kernels::cpu
