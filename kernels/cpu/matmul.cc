// The walls of the products: conversion of activations shared by blocks, then each member its own
// row panels, through the table of the weights' instruction set.
#include "kernels/cpu/matmul.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/packed_matrix.h"

namespace chainpump::kernels::cpu {

static_assert(kRowGranule == kPanelRows);

namespace {

int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// Converts columns [begin, end) of one token; `step` tokens share its tile, which begins at `tile`.
void convert_part(ActivationBuffer::Impl& impl, ActivationForm form, const float* row, int64_t tile,
                  int64_t in_tile, int64_t step, int64_t cols, Range part) {
  const KernelTable& table = kernel_table(impl.isa);
  const float* x = row + part.begin;
  const int64_t count = part.end - part.begin;
  switch (form) {
    case ActivationForm::f32:
      table.spread_row_f32(
          x, count, step,
          reinterpret_cast<float*>(impl.floats.data()) + tile * cols + part.begin * step + in_tile);
      return;
    case ActivationForm::int8: {
      const int64_t run = (tile * cols + part.begin * step) / kBlockCols + in_tile;
      table.quantize_row(x, count / kBlockCols, step,
                         reinterpret_cast<int8_t*>(impl.quants.data()) + run * kBlockCols,
                         reinterpret_cast<ActivationMeta*>(impl.metas.data()) + run);
      return;
    }
    case ActivationForm::int16: {
      const int64_t run = (tile * cols + part.begin * step) / kBlockCols + in_tile;
      table.quantize_row_int16(
          x, count / kBlockCols, step,
          reinterpret_cast<int8_t*>(impl.wide_quants.data()) + run * 2 * kBlockCols,
          reinterpret_cast<ActivationMeta*>(impl.wide_metas.data()) + run);
      return;
    }
    case ActivationForm::bf16:
      table.round_row_bf16(x, count, step,
                           reinterpret_cast<uint16_t*>(impl.halves.data()) +
                               tile * round_up(cols, 2) + part.begin * step + in_tile * 2);
      return;
  }
}

}  // namespace

ActivationBuffer::ActivationBuffer(Isa isa, int64_t max_tokens, int64_t max_cols)
    : impl_(std::make_unique<Impl>()) {
  CHECK_GE(max_tokens, 1);
  CHECK_GE(max_cols, 1);
  const int64_t cols = round_up(max_cols, kBlockCols);
  impl_->isa = isa;
  impl_->max_tokens = max_tokens;
  impl_->max_cols = max_cols;
  impl_->quants = AlignedBuffer(static_cast<size_t>(max_tokens * cols));
  const size_t meta_bytes =
      static_cast<size_t>(max_tokens * cols / kBlockCols) * sizeof(ActivationMeta);
  impl_->metas = AlignedBuffer(meta_bytes);
  impl_->wide_quants = AlignedBuffer(static_cast<size_t>(max_tokens * cols * 2));
  impl_->wide_metas = AlignedBuffer(meta_bytes);
  impl_->halves = AlignedBuffer(static_cast<size_t>(max_tokens * cols * 2));
  impl_->floats = AlignedBuffer(static_cast<size_t>(max_tokens * cols * 4));
}

ActivationBuffer::~ActivationBuffer() = default;

void ActivationBuffer::prepare(TeamMember& member, ActivationForm form, const float* x,
                               int64_t num_tokens, int64_t cols, int64_t x_stride) {
  // Few tokens are shared by blocks of columns, many by rows.
  const bool by_rows = num_tokens >= member.size();
  const Range rows = by_rows ? share_of(member, num_tokens, 1) : Range{0, num_tokens};
  const Range part = by_rows ? Range{0, cols} : share_of(member, cols, kBlockCols);
  for (int64_t t = rows.begin; t < rows.end; ++t)
    convert(form, x + t * x_stride, t, num_tokens, cols, part);
}

void ActivationBuffer::convert(ActivationForm form, const float* row, int64_t token,
                               int64_t num_tokens, int64_t cols, Range part) {
  Impl& impl = *impl_;
  CHECK_LE(num_tokens, impl.max_tokens);
  CHECK_LE(cols, impl.max_cols);
  CHECK_EQ(part.begin % kBlockCols, 0);
  if (form == ActivationForm::int8 || form == ActivationForm::int16) CHECK_EQ(cols % kBlockCols, 0);
  if (part.begin >= part.end) return;
  // Whoever has the first piece notes the width, so that one thread writes it.
  if (token == 0 && part.begin == 0) impl.cols[static_cast<size_t>(form)] = cols;
  const int64_t tile = token / kTileTokens * kTileTokens;
  const int64_t step = std::min<int64_t>(kTileTokens, num_tokens - tile);
  convert_part(impl, form, row, tile, token - tile, step, cols, part);
}

void matmul(TeamMember& member, const PackedMatrix& w, const ActivationBuffer& x,
            int64_t num_tokens, float* y, int64_t y_stride, Store store) {
  const Range mine = share_of(member, w.rows(), kRowGranule);
  matmul_rows(w, x, num_tokens, mine, y + mine.begin, y_stride, store);
}

void matmul_rows(const PackedMatrix& w, const ActivationBuffer& x, int64_t num_tokens, Range rows,
                 float* y, int64_t y_stride, Store store) {
  if (num_tokens == 0 || rows.begin >= rows.end) return;
  const PackedMatrix::Impl& impl = w.impl();
  const ActivationBuffer::Impl& in = x.impl();
  CHECK_EQ(in.cols[static_cast<size_t>(impl.form)], impl.view.cols);
  CHECK_LE(num_tokens, in.max_tokens);
  CHECK_EQ(rows.begin % kPanelRows, 0);
  CHECK(rows.end == impl.view.rows || (rows.end % kPanelRows == 0 && rows.end < impl.view.rows));
  PanelView view = impl.view;  // of these rows, as if there were no others
  view.data += rows.begin / kPanelRows * view.panel_bytes;
  view.rows = rows.end - rows.begin;
  const int64_t num_panels = (view.rows + kPanelRows - 1) / kPanelRows;
  const KernelTable& table = kernel_table(impl.isa);
  const Output out{y, y_stride, store == Store::add};
  switch (impl.form) {
    case ActivationForm::f32:
      return table.matmul_f32(
          view, {reinterpret_cast<const float*>(in.floats.data()), num_tokens, view.cols}, 0,
          num_panels, out);
    case ActivationForm::int8:
      return table.matmul_int8(view,
                               {reinterpret_cast<const int8_t*>(in.quants.data()),
                                reinterpret_cast<const ActivationMeta*>(in.metas.data()),
                                num_tokens, view.cols / kBlockCols, 1},
                               0, num_panels, out);
    case ActivationForm::int16:
      return table.matmul_int8(view,
                               {reinterpret_cast<const int8_t*>(in.wide_quants.data()),
                                reinterpret_cast<const ActivationMeta*>(in.wide_metas.data()),
                                num_tokens, view.cols / kBlockCols, 2},
                               0, num_panels, out);
    case ActivationForm::bf16:
      return table.matmul_bf16(
          view,
          {reinterpret_cast<const uint16_t*>(in.halves.data()), num_tokens, (view.cols + 1) / 2}, 0,
          num_panels, out);
  }
}

}  // namespace chainpump::kernels::cpu
