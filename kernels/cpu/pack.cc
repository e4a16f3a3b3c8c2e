// Repacking of GGUF rows into panels (layout.h). Cost: each raw byte is read once and each packed
// byte written once; a team shares the panels. Rows are decoded 32 columns at a time and stored
// four columns (one dword) at a time, so the work is about 40 scalar operations per 32 weights.
#include <algorithm>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/quant_block.h"

namespace chainpump::kernels::cpu {
namespace {

// Where a block lies in its panel.
struct BlockPlace {
  int64_t scales;  // of its unit
  int64_t quants;
  int64_t in_unit;
};

BlockPlace place_of(QuantBits bits, ScaleKind kind, int64_t b) {
  const int64_t blocks = kUnitBlocks[static_cast<size_t>(kind)];
  const int64_t scale_bytes = kUnitScaleBytes[static_cast<size_t>(kind)];
  const int64_t quant_bytes = static_cast<int64_t>(bits) * 64;
  const int64_t unit = b / blocks * (scale_bytes + blocks * quant_bytes);
  return {unit, unit + scale_bytes + b % blocks * quant_bytes, b % blocks};
}

PanelView make_view(DType type, ActivationForm form, int64_t rows, int64_t cols) {
  PanelView view{};
  view.rows = rows;
  view.cols = cols;
  if (form == ActivationForm::int8 || form == ActivationForm::int16) {
    const QuantTraits traits = quant_traits(type);
    view.kind = PanelKind::quantised;
    view.bits = traits.bits;
    view.scale_kind = traits.scale_kind;
    view.offset_shift = traits.offset_shift;
    const BlockPlace last = place_of(traits.bits, traits.scale_kind, cols / kBlockCols - 1);
    view.panel_bytes = last.quants + static_cast<int64_t>(traits.bits) * 64;
  } else if (form == ActivationForm::bf16) {
    view.kind = PanelKind::bf16_pairs;
    view.panel_bytes = (cols + 1) / 2 * kPanelRows * 4;
  } else if (type == DType::f16 || type == DType::bf16) {
    view.kind = type == DType::f16 ? PanelKind::f16 : PanelKind::bf16;
    view.panel_bytes = cols * kPanelRows * 2;
  } else {
    view.kind = PanelKind::f32;
    view.panel_bytes = cols * kPanelRows * 4;
  }
  view.panel_bytes = (view.panel_bytes + 63) / 64 * 64;
  return view;
}

template <typename T>
void put(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof(T));
}

// Row `lane` of block `b` into the panel.
void store_quants(std::byte* block_at, QuantBits bits, int lane, const uint32_t* groups) {
  std::byte* at = block_at + lane * 4;
  if (bits == QuantBits::b8) {
    for (int g = 0; g < kGroups; ++g) put(at + 64 * g, groups[g]);
    return;
  }
  for (int p = 0; p < 4; ++p)
    put(at + 64 * p, (groups[p] & 0x0f0f0f0f) | (groups[p + 4] & 0x0f0f0f0f) << 4);
  if (bits == QuantBits::b5) {
    uint32_t high = 0;
    for (int g = 0; g < kGroups; ++g) high |= (groups[g] >> 4 & 0x01010101) << g;
    put(at + 64 * 4, high);
  } else if (bits == QuantBits::b6) {
    uint32_t high[2] = {0, 0};
    for (int g = 0; g < kGroups; ++g) high[g / 4] |= (groups[g] >> 4 & 0x03030303) << (2 * (g % 4));
    put(at + 64 * 4, high[0]);
    put(at + 64 * 5, high[1]);
  }
}

// Row `lane` of the scales of a unit's block `b`.
void store_scales(std::byte* unit, ScaleKind kind, int64_t b, int lane, const QuantBlock& block) {
  switch (kind) {
    case ScaleKind::scale:
      put(unit + (b * kPanelRows + lane) * 2, block.d);
      return;
    case ScaleKind::scale_min:
      put(unit + lane * 2, block.d);
      put(unit + (kPanelRows + lane) * 2, block.m);
      return;
    case ScaleKind::k_min: {
      put(unit + lane * 2, block.d);
      put(unit + (kPanelRows + lane) * 2, block.m);
      std::byte* small = unit + kPanelRows * (4 + b * 2);
      put(small + lane, block.sc);
      put(small + kPanelRows + lane, block.mn);
      return;
    }
    case ScaleKind::k6: {
      put(unit + lane * 2, block.d);
      std::byte* small = unit + kPanelRows * (2 + b * 2);
      put(small + lane, block.sc);
      put(small + kPanelRows + lane, block.mn);
      return;
    }
  }
}

// Rows [16 * panel, ...) of a quantised matrix.
void pack_quantised(DType type, const PanelView& view, const std::byte* raw, int64_t raw_stride,
                    int64_t panel, std::byte* out) {
  const int64_t first = panel * kPanelRows;
  const auto lanes = static_cast<int>(std::min<int64_t>(kPanelRows, view.rows - first));
  QuantBlock block;
  for (int64_t b = 0; b < view.cols / kBlockCols; ++b) {
    const BlockPlace place = place_of(view.bits, view.scale_kind, b);
    for (int lane = 0; lane < lanes; ++lane) {
      decode_block(type, raw + (first + lane) * raw_stride, b, &block);
      store_quants(out + place.quants, view.bits, lane, block.groups);
      store_scales(out + place.scales, view.scale_kind, place.in_unit, lane, block);
    }
  }
}

// 16-bit elements as they are: [col][16], or pairs of columns [pair][16][2].
void pack_halves(const PanelView& view, const std::byte* raw, int64_t panel, std::byte* out) {
  const int64_t first = panel * kPanelRows;
  const auto lanes = static_cast<int>(std::min<int64_t>(kPanelRows, view.rows - first));
  for (int lane = 0; lane < lanes; ++lane) {
    const std::byte* row = raw + (first + lane) * view.cols * 2;
    for (int64_t c = 0; c < view.cols; ++c) {
      const auto bits = quant_detail::load<uint16_t>(row + 2 * c);
      const int64_t at = view.kind == PanelKind::bf16_pairs
                             ? (c / 2 * kPanelRows + lane) * 2 + c % 2
                             : c * kPanelRows + lane;
      put(out + 2 * at, bits);
    }
  }
}

void pack_floats(DType type, const PanelView& view, const std::byte* raw, int64_t raw_stride,
                 int64_t panel, std::vector<float>& row, std::byte* out) {
  const int64_t first = panel * kPanelRows;
  const auto lanes = static_cast<int>(std::min<int64_t>(kPanelRows, view.rows - first));
  for (int lane = 0; lane < lanes; ++lane) {
    dequantize_row(type, {raw + (first + lane) * raw_stride, static_cast<size_t>(raw_stride)}, row);
    for (int64_t c = 0; c < view.cols; ++c)
      put(out + (c * kPanelRows + lane) * 4, row[static_cast<size_t>(c)]);
  }
}

constexpr size_t kArenaPieceBytes = size_t{64} << 20;

// Zeroed memory of impl.bytes for the panels.
std::byte* take_memory(PackedMatrix::Impl& impl, PanelArena* arena) {
  const auto bytes = static_cast<size_t>(impl.bytes);  // a multiple of 64
  if (arena == nullptr) {
    impl.memory = std::make_shared<AlignedBuffer>(bytes);
    return impl.memory->data();
  }
  PanelArena::Impl& pieces = arena->impl();
  if (pieces.piece == nullptr || pieces.piece->bytes() - pieces.used < bytes) {
    pieces.piece = std::make_shared<AlignedBuffer>(std::max(bytes, kArenaPieceBytes));
    pieces.used = 0;
  }
  impl.memory = pieces.piece;
  std::byte* at = pieces.piece->data() + pieces.used;
  pieces.used += bytes;
  return at;
}

}  // namespace

PanelArena::PanelArena() : impl_(std::make_unique<Impl>()) {}
PanelArena::~PanelArena() = default;

ActivationForm activation_form(DType weights, ActivationPrecision precision) {
  if (precision == ActivationPrecision::exact) return ActivationForm::f32;
  if (weights == DType::f32 || weights == DType::f16) return ActivationForm::f32;
  if (weights == DType::bf16) return ActivationForm::bf16;
  return precision == ActivationPrecision::fine ? ActivationForm::int16 : ActivationForm::int8;
}

PackedMatrix::PackedMatrix(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PackedMatrix::PackedMatrix(PackedMatrix&&) noexcept = default;
PackedMatrix& PackedMatrix::operator=(PackedMatrix&&) noexcept = default;
PackedMatrix::~PackedMatrix() = default;

int64_t PackedMatrix::rows() const { return impl_->view.rows; }
int64_t PackedMatrix::cols() const { return impl_->view.cols; }
ActivationForm PackedMatrix::form() const { return impl_->form; }
int64_t PackedMatrix::bytes() const { return impl_->bytes; }

PackedMatrix PackedMatrix::pack(Isa isa, DType type, ActivationPrecision precision, int64_t rows,
                                int64_t cols, std::span<const std::byte> raw, Team& team,
                                PanelArena* arena) {
  PackedMatrix matrix = allocate(isa, type, precision, rows, cols, arena);
  matrix.fill(raw, team);
  return matrix;
}

PackedMatrix PackedMatrix::allocate(Isa isa, DType type, ActivationPrecision precision,
                                    int64_t rows, int64_t cols, PanelArena* arena) {
  CHECK_GE(rows, 1);
  CHECK_GE(cols, 1);
  auto impl = std::make_unique<Impl>();
  impl->isa = isa;
  impl->type = type;
  impl->form = activation_form(type, precision);
  impl->view = make_view(type, impl->form, rows, cols);
  impl->bytes = (rows + kPanelRows - 1) / kPanelRows * impl->view.panel_bytes;
  impl->view.data = take_memory(*impl, arena);
  return PackedMatrix(std::move(impl));
}

std::span<std::byte> PackedMatrix::panels() {
  // The memory is ours and writable; products only read it, so the view has it const.
  return {const_cast<std::byte*>(impl_->view.data), static_cast<size_t>(impl_->bytes)};
}

void PackedMatrix::fill(std::span<const std::byte> raw, Team& team) {
  const PanelView& view = impl_->view;
  const DType type = impl_->type;
  const int64_t raw_stride = row_bytes(type, view.cols);
  CHECK_EQ(static_cast<int64_t>(raw.size()), view.rows * raw_stride);
  std::byte* const packed = panels().data();
  team.run([&](TeamMember& member) {
    std::vector<float> row(view.kind == PanelKind::f32 ? static_cast<size_t>(view.cols) : 0);
    const Range mine = share_of(member, impl_->bytes / view.panel_bytes, 1);
    for (int64_t panel = mine.begin; panel < mine.end; ++panel) {
      std::byte* out = packed + panel * view.panel_bytes;
      if (view.kind == PanelKind::quantised)
        pack_quantised(type, view, raw.data(), raw_stride, panel, out);
      else if (view.kind == PanelKind::f32)
        pack_floats(type, view, raw.data(), raw_stride, panel, row, out);
      else
        pack_halves(view, raw.data(), panel, out);
    }
  });
}

std::string_view panel_layout() { return CHAINPUMP_PANEL_LAYOUT; }

}  // namespace chainpump::kernels::cpu
