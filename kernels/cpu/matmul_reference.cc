// The products in plain C++: the meaning of correct for every variant. One element at a time; a
// quantised element adds its blocks in ascending column order, each by
//   acc = fma(float(I), d * s, acc)         I = exact integer sum of q * a (offset already taken),
//                                           a of 8 bits, or of 16 in two bytes
//   acc = fma(m, s * sum(a), acc)           where the type has a minimum
// with d the weight block's scale and s the activation block's. The vector forms do the same
// operations, 16 rows at a time, so their bits are equal. f32 is one fma per column, ascending;
// bf16 adds the products of each pair of columns, see matmul_bf16 below.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "kernels/cpu/block_range.h"
#include "kernels/cpu/reference.h"

namespace chainpump::kernels::cpu::reference {
namespace {

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

uint8_t quant_at(const std::byte* block, QuantBits bits, int lane, int c) {
  const int g = c / 4;
  const std::byte* at = block + lane * 4 + c % 4;
  if (bits == QuantBits::b8) return load<uint8_t>(at + 64 * g);
  const int nibble = load<uint8_t>(at + 64 * (g % 4)) >> (g < 4 ? 0 : 4) & 0xf;
  int high = 0;
  if (bits == QuantBits::b5) high = load<uint8_t>(at + 64 * 4) >> g & 1;
  if (bits == QuantBits::b6) high = load<uint8_t>(at + 64 * (4 + g / 4)) >> (2 * (g % 4)) & 3;
  return static_cast<uint8_t>(nibble | high << 4);
}

struct BlockScales {
  float scale[2];  // of columns 0..15 and 16..31; equal but for k6
  float minimum;
};

// Of block `b` of the unit whose scales begin at `unit`.
BlockScales scales_at(ScaleKind kind, const std::byte* unit, int64_t b, int lane) {
  const auto half = [](const std::byte* at) { return f16_to_float(load<uint16_t>(at)); };
  switch (kind) {
    case ScaleKind::scale: {
      const float d = half(unit + (b * 16 + lane) * 2);
      return {{d, d}, 0};
    }
    case ScaleKind::scale_min: {
      const float d = half(unit + lane * 2);
      return {{d, d}, half(unit + (16 + lane) * 2)};
    }
    case ScaleKind::k_min: {
      const std::byte* small = unit + 64 + b * 32;
      const float d = half(unit + lane * 2) * static_cast<float>(load<uint8_t>(small + lane));
      const float m =
          half(unit + 32 + lane * 2) * static_cast<float>(load<uint8_t>(small + 16 + lane));
      return {{d, d}, -m};
    }
    case ScaleKind::k6: {
      const std::byte* small = unit + 32 + b * 32;
      const float d = half(unit + lane * 2);
      return {{d * static_cast<float>(load<int8_t>(small + lane)),
               d * static_cast<float>(load<int8_t>(small + 16 + lane))},
              0};
    }
  }
  return {};
}

float element_int8(const PanelView& w, const std::byte* panel, int lane, const int8_t* quants,
                   const ActivationMeta* metas, const Int8View& x, int64_t step) {
  const int64_t quant_bytes = static_cast<int64_t>(w.bits) * 64;
  const int64_t unit_blocks = kUnitBlocks[static_cast<size_t>(w.scale_kind)];
  const int64_t scale_bytes = kUnitScaleBytes[static_cast<size_t>(w.scale_kind)];
  const bool has_offset = w.scale_kind == ScaleKind::scale || w.scale_kind == ScaleKind::k6;
  float acc = 0;
  for (int64_t b = 0; b < x.num_blocks; ++b) {
    const int64_t in_unit = b % unit_blocks;
    const std::byte* unit = panel + b / unit_blocks * (scale_bytes + unit_blocks * quant_bytes);
    const std::byte* block = unit + scale_bytes + in_unit * quant_bytes;
    const int8_t* a = quants + b * step * x.num_terms * kBlockCols;
    const ActivationMeta& meta = metas[b * step];
    int32_t sums[2] = {0, 0};
    for (int c = 0; c < kBlockCols; ++c) {
      const int32_t activation = x.num_terms == 1 ? a[c] : 256 * a[c] + a[kBlockCols + c];
      sums[c / 16] += quant_at(block, w.bits, lane, c) * activation;
    }
    if (has_offset) {
      sums[0] += meta.neg_sum_lo * (1 << w.offset_shift);
      sums[1] += (meta.neg_sum - meta.neg_sum_lo) * (1 << w.offset_shift);
    }
    const BlockScales scales = scales_at(w.scale_kind, unit, in_unit, lane);
    if (w.scale_kind == ScaleKind::k6) {
      acc = std::fma(static_cast<float>(sums[0]), scales.scale[0] * meta.scale, acc);
      acc = std::fma(static_cast<float>(sums[1]), scales.scale[1] * meta.scale, acc);
    } else {
      acc = std::fma(static_cast<float>(sums[0] + sums[1]), scales.scale[0] * meta.scale, acc);
      if (!has_offset) acc = std::fma(scales.minimum, meta.scaled_sum, acc);
    }
  }
  return acc;
}

float element_f32(const PanelView& w, const std::byte* panel, int lane, const float* x,
                  int64_t step) {
  float acc = 0;
  for (int64_t c = 0; c < w.cols; ++c) {
    const int64_t at = c * kPanelRows + lane;
    float weight = 0;
    if (w.kind == PanelKind::f32)
      weight = load<float>(panel + at * 4);
    else if (w.kind == PanelKind::f16)
      weight = f16_to_float(load<uint16_t>(panel + at * 2));
    else
      weight = bf16_to_float(load<uint16_t>(panel + at * 2));
    acc = std::fma(weight, x[c * step], acc);
  }
  return acc;
}

float element_bf16(const std::byte* panel, int64_t num_pairs, int lane, const uint16_t* x,
                   int64_t step) {
  float acc = 0;
  for (int64_t p = 0; p < num_pairs; ++p) {
    const std::byte* at = panel + (p * kPanelRows + lane) * 4;
    acc = std::fma(bf16_to_float(load<uint16_t>(at + 2)), bf16_to_float(x[2 * p * step + 1]), acc);
    acc = std::fma(bf16_to_float(load<uint16_t>(at)), bf16_to_float(x[2 * p * step]), acc);
  }
  return acc;
}

// Where a token's activations lie: its tile's first token, its place and the tile's token count.
struct TokenPlace {
  int64_t tile;
  int64_t in_tile;
  int64_t step;
};

// Calls element(panel, lane, place) for every output of the panels.
template <typename Element>
void for_each_output(const PanelView& w, int64_t num_tokens, int64_t first, int64_t last,
                     const Output& y, Element element) {
  const int64_t end = std::min(last * kPanelRows, w.rows);
  for (int64_t row = first * kPanelRows; row < end; ++row) {
    const std::byte* panel = w.data + row / kPanelRows * w.panel_bytes;
    for (int64_t t = 0; t < num_tokens; ++t) {
      const int64_t tile = t / kTileTokens * kTileTokens;
      const TokenPlace place{tile, t - tile, std::min<int64_t>(kTileTokens, num_tokens - tile)};
      const float value = element(panel, static_cast<int>(row % kPanelRows), place);
      float& out = y.data[t * y.stride + row];
      out = y.add ? out + value : value;
    }
  }
}

BlockRange range_of(const float* in) {
  uint32_t largest = 0;
  for (int c = 0; c < kBlockCols; ++c)
    largest = std::max(largest, std::bit_cast<uint32_t>(in[c]) & 0x7fffffff);
  return block_range(largest);
}

}  // namespace

void quantize_row(const float* x, int64_t num_blocks, int64_t step, int8_t* quants,
                  ActivationMeta* metas) {
  for (int64_t b = 0; b < num_blocks; ++b) {
    const float* in = x + b * kBlockCols;
    int8_t* out = quants + b * step * kBlockCols;
    const BlockRange range = range_of(in);
    const float inverse = inverse_of(range, kInt8Steps);
    int32_t sums[2] = {0, 0};
    for (int c = 0; c < kBlockCols; ++c) {
      out[c] = range.usable ? static_cast<int8_t>(std::nearbyintf(in[c] * inverse)) : int8_t{0};
      sums[c / 16] += out[c];
    }
    metas[b * step] = meta_of(range, kInt8Steps, sums[0], sums[1]);
  }
}

void quantize_row_int16(const float* x, int64_t num_blocks, int64_t step, int8_t* quants,
                        ActivationMeta* metas) {
  for (int64_t b = 0; b < num_blocks; ++b) {
    const float* in = x + b * kBlockCols;
    int8_t* out = quants + b * step * 2 * kBlockCols;
    const BlockRange range = range_of(in);
    const float inverse = inverse_of(range, kInt16Steps);
    int32_t sums[2] = {0, 0};
    for (int c = 0; c < kBlockCols; ++c) {
      const auto a = range.usable ? static_cast<int32_t>(std::nearbyintf(in[c] * inverse)) : 0;
      const int32_t high = (a + 128) >> 8;
      const int32_t low = std::max(a - 256 * high, -127);  // symmetric: what vpsignb can negate
      out[c] = static_cast<int8_t>(high);
      out[kBlockCols + c] = static_cast<int8_t>(low);
      sums[c / 16] += 256 * high + low;
    }
    metas[b * step] = meta_of(range, kInt16Steps, sums[0], sums[1]);
  }
}

void spread_row_f32(const float* x, int64_t cols, int64_t step, float* out) {
  for (int64_t c = 0; c < cols; ++c) out[c * step] = x[c];
}

void round_row_bf16(const float* x, int64_t cols, int64_t step, uint16_t* out) {
  for (int64_t c = 0; c < cols; ++c) out[c / 2 * 2 * step + c % 2] = float_to_bf16(x[c]);
  if (cols % 2 != 0) out[cols / 2 * 2 * step + 1] = 0;
}

void matmul_int8(const PanelView& w, const Int8View& x, int64_t first, int64_t last,
                 const Output& y) {
  for_each_output(w, x.num_tokens, first, last, y,
                  [&](const std::byte* panel, int lane, const TokenPlace& at) {
                    const int64_t run = at.tile * x.num_blocks + at.in_tile;
                    return element_int8(w, panel, lane, x.quants + run * x.num_terms * kBlockCols,
                                        x.metas + run, x, at.step);
                  });
}

void matmul_f32(const PanelView& w, const F32View& x, int64_t first, int64_t last,
                const Output& y) {
  for_each_output(
      w, x.num_tokens, first, last, y, [&](const std::byte* panel, int lane, const TokenPlace& at) {
        return element_f32(w, panel, lane, x.data + at.tile * x.cols + at.in_tile, at.step);
      });
}

void matmul_bf16(const PanelView& w, const Bf16View& x, int64_t first, int64_t last,
                 const Output& y) {
  for_each_output(w, x.num_tokens, first, last, y,
                  [&](const std::byte* panel, int lane, const TokenPlace& at) {
                    const int64_t run = at.tile * x.num_pairs + at.in_tile;
                    return element_bf16(panel, x.num_pairs, lane, x.data + run * 2, at.step);
                  });
}

}  // namespace chainpump::kernels::cpu::reference
