// Inside of PackedMatrix and ActivationBuffer, for the files of this folder only.
#pragma once

#include <memory>

#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/matmul.h"

namespace chainpump::kernels::cpu {

struct PackedMatrix::Impl {
  Isa isa;
  DType type;
  ActivationForm form;
  PanelView view;
  std::shared_ptr<AlignedBuffer> memory;  // its own, or an arena's piece
  int64_t bytes;
};

struct PanelArena::Impl {
  std::shared_ptr<AlignedBuffer> piece;
  size_t used = 0;
};

struct ActivationBuffer::Impl {
  Isa isa;
  int64_t max_tokens;
  int64_t max_cols;
  AlignedBuffer quants;
  AlignedBuffer metas;
  AlignedBuffer wide_quants;  // int16
  AlignedBuffer wide_metas;
  AlignedBuffer halves;  // bf16
  AlignedBuffer floats;
  int64_t cols[kNumActivationForms] = {};  // last prepared, by form
};

}  // namespace chainpump::kernels::cpu
