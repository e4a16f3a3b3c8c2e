// Products of activations with weights: y[n, rows] = x[n, cols] * W[rows, cols]^T, f32 in and out.
//
// The one law: for each output element the order of additions depends only on its row and on cols;
// never on n, the team's size or the neighbours. So a token's result is the same bits alone, in a
// batch, and in any prefill chunk.
//
// Weights are repacked once at load (pack) for the instruction set; activations are converted once
// per input (ActivationBuffer::prepare) and read by every product that shares the input.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/dtype.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/team.h"

namespace chainpump::kernels::cpu {

/// How activations enter a product.
enum class ActivationForm : uint8_t {
  f32,    // as they are: F32 and F16 weights, and every type with `activations: f32`
  int8,   // rounded to int8 with one f32 scale per 32 columns: all quantised types by default
  int16,  // the same to 16 bits, multiplied as two int8 terms
  bf16,   // rounded to bf16: BF16 weights by default
};
inline constexpr size_t kNumActivationForms = 4;

/// How finely activations enter a product. Rounding to int8 loses most where a few channels are
/// much larger than the rest and where nothing after the product averages the error out.
enum class ActivationPrecision : uint8_t {
  normal,  // int8 for quantised weights
  fine,    // int16 for quantised weights: twice the multiplications, no more bytes of weights
  exact,   // f32 for all: the graph key `activations: f32`
};

/// The form that a product with weights of this type uses.
ActivationForm activation_form(DType weights, ActivationPrecision precision);

/// Memory for many packed matrices, side by side in huge pages in the order in which they are
/// packed, so that a step which reads them in that order is one stream of memory. A piece is given
/// back when the last matrix in it is gone. One thread; may end before its matrices.
class PanelArena {
 public:
  PanelArena();
  ~PanelArena();
  PanelArena(const PanelArena&) = delete;
  PanelArena& operator=(const PanelArena&) = delete;

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

/// A weight matrix [rows, cols] in the layout of one instruction set. Immutable; any thread.
class PackedMatrix {
 public:
  /// `raw`: rows * row_bytes(type, cols) bytes in GGUF's layout, only read during the call; the
  /// caller checks its size. Any rows >= 1; cols a multiple of the type's block.
  /// Without an arena it has memory of its own.
  static PackedMatrix pack(Isa isa, DType type, ActivationPrecision precision, int64_t rows,
                           int64_t cols, std::span<const std::byte> raw, Team& team,
                           PanelArena* arena = nullptr);
  /// The two halves of pack(), for panels that may come from elsewhere: memory, all zero, and the
  /// repacking of `raw` into it. Whoever fills panels() otherwise does so before any product.
  static PackedMatrix allocate(Isa isa, DType type, ActivationPrecision precision, int64_t rows,
                               int64_t cols, PanelArena* arena);
  void fill(std::span<const std::byte> raw, Team& team);
  /// All bytes(). Equal for equal raw rows, type, shape, form, instruction set and panel_layout().
  std::span<std::byte> panels();

  PackedMatrix(PackedMatrix&&) noexcept;
  PackedMatrix& operator=(PackedMatrix&&) noexcept;
  ~PackedMatrix();

  int64_t rows() const;
  int64_t cols() const;
  ActivationForm form() const;
  int64_t bytes() const;  // memory held, read once per product

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  explicit PackedMatrix(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Names how panels are laid out: another name, other bytes. It is a hash of the sources that make
/// them, so nobody can forget to raise it.
std::string_view panel_layout();

/// Converted activations of up to max_tokens rows of up to max_cols. Owned by the executor.
class ActivationBuffer {
 public:
  ActivationBuffer(Isa isa, int64_t max_tokens, int64_t max_cols);
  ~ActivationBuffer();
  ActivationBuffer(const ActivationBuffer&) = delete;
  ActivationBuffer& operator=(const ActivationBuffer&) = delete;

  /// x: [num_tokens, cols] f32 with row stride x_stride (elements). Every member calls it with the
  /// same arguments; a barrier must follow before a product reads it. Everything is copied. Calling
  /// it for several forms in turn keeps all of them. Products must be given the same num_tokens.
  void prepare(TeamMember& member, ActivationForm form, const float* x, int64_t num_tokens,
               int64_t cols, int64_t x_stride);

  /// One thread's piece of the same: columns `part` (from a multiple of 32) of token `token` of
  /// num_tokens, from `row` [cols]. Threads may convert different pieces at once; every piece must
  /// have been converted before a product reads.
  void convert(ActivationForm form, const float* row, int64_t token, int64_t num_tokens,
               int64_t cols, Range part);

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

enum class Store : uint8_t { assign, add };  // y = xW or y += xW (one addition at the end)

/// Rows of a product are shared in multiples of this.
inline constexpr int64_t kRowGranule = 16;

/// The products with `rows` of w alone (from a multiple of kRowGranule), by the calling thread: so
/// that what it does next with them needs no barrier. y: [num_tokens, rows.end - rows.begin], row
/// stride y_stride, so that a piece may lie together in a cache.
void matmul_rows(const PackedMatrix& w, const ActivationBuffer& x, int64_t num_tokens, Range rows,
                 float* y, int64_t y_stride, Store store);

/// y: [num_tokens, rows] f32, row stride y_stride. Every member calls it; each computes its own row
/// panels. The buffer must have been prepared in w.form(). No barrier inside.
void matmul(TeamMember& member, const PackedMatrix& w, const ActivationBuffer& x,
            int64_t num_tokens, float* y, int64_t y_stride, Store store);

/// out[cols] = row `row` of a raw GGUF matrix, dequantised exactly to f32. Any ISA gives equal
/// bits.
void dequantize_row(DType type, std::span<const std::byte> raw_row, std::span<float> out);

}  // namespace chainpump::kernels::cpu
