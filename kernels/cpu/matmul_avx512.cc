// Products with int8 activations, AVX-512 VNNI.
//
// Lanes: the 16 rows of a panel. For one block of 32 columns the quants are unpacked to 8 vectors
// of [row][4 columns]; for each token of a tile, 8 vpdpbusd take 4 broadcast activation bytes each,
// starting from the exact offset correction, and one or two fma add the block to the token's 16
// running sums, which stay in registers over the whole row. Up to 16 tokens share the unpacking.
// 16-bit activations are two terms: the sums of the high bytes are taken 256 times and added.
// Threads: contiguous panels. Memory: the weights once per 512 KiB of activations, one stream,
// asked for 5 KiB ahead (scales apart from the quants cost a third of the bandwidth).
// Bound: reading weights for few tokens; from 16 tokens on, the multipliers: 8 vpdpbusd of the 10
// or 11 operations on their two pipes, so 0.73 (with a minimum) to 0.8 of the vpdpbusd peak at
// best. Reached on one Zen4 thread (`chainpump bench kernels`; read 22 to 30 GB/s, int8 455 to 470
// Gop/s): 4 bits 0.9 to 1.1 of reading for 1 and 2 tokens, 0.7 to 0.85 for 4, where both bounds are
// near; 8 bits 0.8 to 0.9 for 1 and 2, 0.55 to 0.65 for 4. 512 tokens: 0.65 to 0.7 of the peak
// (q4_1, q4_k), 0.74 to 0.82 (q4_0), 0.7 to 0.75 (q8_0).
#include <immintrin.h>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/layout.h"

namespace chainpump::kernels::cpu::avx512 {
namespace {

template <QuantBits kBits>
inline void unpack(const std::byte* block, __m512i* q) {
  const auto* in = reinterpret_cast<const __m512i*>(block);
  if constexpr (kBits == QuantBits::b8) {
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) q[g] = _mm512_load_si512(in + g);
    return;
  }
  const __m512i low = _mm512_set1_epi8(0x0f);
#pragma GCC unroll 4
  for (int p = 0; p < 4; ++p) {
    const __m512i both = _mm512_load_si512(in + p);
    q[p] = _mm512_and_si512(both, low);
    q[p + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
  }
  // 0xf8 is a | (b & c).
  if constexpr (kBits == QuantBits::b5) {
    const __m512i bit = _mm512_set1_epi8(0x10);
    const __m512i high = _mm512_load_si512(in + 4);
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) {
      const __m512i at4 = g < 4 ? _mm512_slli_epi16(high, static_cast<unsigned>(4 - g))
                                : _mm512_srli_epi16(high, static_cast<unsigned>(g - 4));
      q[g] = _mm512_ternarylogic_epi32(q[g], at4, bit, 0xf8);
    }
  }
  if constexpr (kBits == QuantBits::b6) {
    const __m512i bits = _mm512_set1_epi8(0x30);
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) {
      const __m512i high = _mm512_load_si512(in + 4 + g / 4);
      const int at = 2 * (g % 4);
      const __m512i at4 = at < 4 ? _mm512_slli_epi16(high, static_cast<unsigned>(4 - at))
                                 : _mm512_srli_epi16(high, static_cast<unsigned>(at - 4));
      q[g] = _mm512_ternarylogic_epi32(q[g], at4, bits, 0xf8);
    }
  }
}

constexpr int64_t kAheadBytes = 5120;  // 2.5 to 10 KiB were tried

struct Scales {
  __m512 scale;
  __m512 second;  // k6: of columns 16..31; with a minimum: the minimum
};

inline __m512 halves(const std::byte* at) {
  return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(at)));
}
inline __m128i bytes16(const std::byte* at) {
  return _mm_load_si128(reinterpret_cast<const __m128i*>(at));
}
inline __m512 from_unsigned(const std::byte* at) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes16(at)));
}
inline __m512 from_signed(const std::byte* at) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes16(at)));
}

template <ScaleKind kScale>
inline Scales load_scales(const std::byte* unit, int64_t b) {
  if constexpr (kScale == ScaleKind::scale) {
    return {halves(unit + b * 32), _mm512_setzero_ps()};
  } else if constexpr (kScale == ScaleKind::scale_min) {
    return {halves(unit), halves(unit + 32)};
  } else if constexpr (kScale == ScaleKind::k_min) {
    const std::byte* small = unit + 64 + b * 32;
    const __m512 minimum = _mm512_mul_ps(halves(unit + 32), from_unsigned(small + 16));
    return {_mm512_mul_ps(halves(unit), from_unsigned(small)),
            _mm512_xor_ps(minimum, _mm512_set1_ps(-0.0f))};
  } else {
    const std::byte* small = unit + 32 + b * 32;
    const __m512 d = halves(unit);
    return {_mm512_mul_ps(d, from_signed(small)), _mm512_mul_ps(d, from_signed(small + 16))};
  }
}

inline __m512i start(int32_t neg_sum, unsigned shift) {
  return _mm512_slli_epi32(_mm512_set1_epi32(neg_sum), shift);
}

// sum + q times the four activation bytes at `a`, in every lane. GCC 12 has no pattern for the
// broadcast that is part of the instruction and would spend a load of its own on each.
inline __m512i dot(__m512i sum, __m512i q, const int32_t* a) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(q), "m"(*a));
  return sum;
}

// sum + the products of kCount groups with the activation bytes at `a`, of one term or two.
template <int kTerms, int kCount>
inline __m512i multiply_add(__m512i sum, const __m512i* q, const int32_t* a) {
  if constexpr (kTerms == 2) {
    __m512i high = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int g = 0; g < kCount; ++g) high = dot(high, q[g], a + g);
    sum = _mm512_add_epi32(sum, _mm512_slli_epi32(high, 8));
    a += kGroups;
  }
  if constexpr (kTerms == 1 &&
                kCount == kGroups) {  // two chains of four wait less than one of eight
    __m512i second = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
      sum = dot(sum, q[g], a + g);
      second = dot(second, q[g + 4], a + g + 4);
    }
    return _mm512_add_epi32(sum, second);
  }
#pragma GCC unroll 8
  for (int g = 0; g < kCount; ++g) sum = dot(sum, q[g], a + g);
  return sum;
}

// Bound by memory: asks for the kBytes that lie a fixed way ahead in the stream of panels.
template <int64_t kBytes>
inline void fetch_ahead(const std::byte* at) {
#pragma GCC unroll 8
  for (int64_t line = 0; line < kBytes; line += 64)
    _mm_prefetch(reinterpret_cast<const char*>(at + kAheadBytes + line), _MM_HINT_T0);
}

// Asks for the lines that are written at the end: outputs of prefill lie in L3 or behind.
template <int kTokens>
inline void fetch_outputs(const Output& y) {
  if constexpr (kTokens < 8) return;
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) asm volatile("prefetchw %0" : : "m"(y.data[t * y.stride]));
}

// Tokens [0, kTokens) of a tile times one panel.
template <QuantBits kBits, ScaleKind kScale, int kTerms, int kTokens>
void panel_times_tokens(const PanelView& w, const std::byte* panel, const int8_t* quants,
                        const ActivationMeta* metas, int64_t step, const Output& y,
                        __mmask16 rows) {
  constexpr unsigned kShift = static_cast<unsigned>(kBits) - 1;
  constexpr bool kHasMinimum = kScale == ScaleKind::scale_min || kScale == ScaleKind::k_min;
  const int64_t num_blocks = w.cols / kBlockCols;
  constexpr int64_t kQuantBytes = static_cast<int>(kBits) * 64;
  constexpr int64_t kBlocks = kUnitBlocks[static_cast<int>(kScale)];
  constexpr int64_t kScaleBytes = kUnitScaleBytes[static_cast<int>(kScale)];
  const std::byte* unit = nullptr;
  fetch_outputs<kTokens>(y);
  __m512 acc[kTokens];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) acc[t] = _mm512_setzero_ps();
  for (int64_t b = 0; b < num_blocks; ++b) {
    if (b % kBlocks == 0) {
      unit = panel;
      fetch_ahead<kScaleBytes>(panel);
      panel += kScaleBytes;
    }
    __m512i q[8];
    unpack<kBits>(panel, q);
    fetch_ahead<kQuantBytes>(panel);
    panel += kQuantBytes;
    const Scales s = load_scales<kScale>(unit, b % kBlocks);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const auto* a = reinterpret_cast<const int32_t*>(quants + t * kTerms * kBlockCols);
      const ActivationMeta& meta = metas[t];
      const __m512 a_scale = _mm512_set1_ps(meta.scale);
      __m512i sum = _mm512_setzero_si512();
      if constexpr (kScale == ScaleKind::k6) {
        sum = multiply_add<kTerms, 4>(start(meta.neg_sum_lo, kShift), q, a);
        const __m512i second =
            multiply_add<kTerms, 4>(start(meta.neg_sum - meta.neg_sum_lo, kShift), q + 4, a + 4);
        acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(s.scale, a_scale), acc[t]);
        acc[t] =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(second), _mm512_mul_ps(s.second, a_scale), acc[t]);
      } else {
        if constexpr (!kHasMinimum) sum = start(meta.neg_sum, kShift);
        sum = multiply_add<kTerms, 8>(sum, q, a);
        acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(s.scale, a_scale), acc[t]);
        if constexpr (kHasMinimum)
          acc[t] = _mm512_fmadd_ps(s.second, _mm512_set1_ps(meta.scaled_sum), acc[t]);
      }
    }
    quants += step * kTerms * kBlockCols;
    metas += step;
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
    float* out = y.data + t * y.stride;
    if (y.add) acc[t] = _mm512_add_ps(_mm512_maskz_loadu_ps(rows, out), acc[t]);
    _mm512_mask_storeu_ps(out, rows, acc[t]);
  }
}

using PanelKernel = void (*)(const PanelView&, const std::byte*, const int8_t*,
                             const ActivationMeta*, int64_t, const Output&, __mmask16);

// By number of tokens; 9 to 15 are done as 8 and the rest.
struct PanelKernels {
  PanelKernel by_tokens[kTileTokens + 1];
};

template <QuantBits kBits, ScaleKind kScale, int kTerms>
constexpr PanelKernels panel_kernels() {
  return {
      {nullptr, panel_times_tokens<kBits, kScale, kTerms, 1>,
       panel_times_tokens<kBits, kScale, kTerms, 2>, panel_times_tokens<kBits, kScale, kTerms, 3>,
       panel_times_tokens<kBits, kScale, kTerms, 4>, panel_times_tokens<kBits, kScale, kTerms, 5>,
       panel_times_tokens<kBits, kScale, kTerms, 6>, panel_times_tokens<kBits, kScale, kTerms, 7>,
       panel_times_tokens<kBits, kScale, kTerms, 8>, nullptr, nullptr, nullptr, nullptr, nullptr,
       nullptr, nullptr, panel_times_tokens<kBits, kScale, kTerms, 16>}};
}

template <int kTerms>
const PanelKernels& kernels_for(const PanelView& w) {
  static constexpr PanelKernels k4 = panel_kernels<QuantBits::b4, ScaleKind::scale, kTerms>();
  static constexpr PanelKernels k4_min =
      panel_kernels<QuantBits::b4, ScaleKind::scale_min, kTerms>();
  static constexpr PanelKernels k4_k = panel_kernels<QuantBits::b4, ScaleKind::k_min, kTerms>();
  static constexpr PanelKernels k5 = panel_kernels<QuantBits::b5, ScaleKind::scale, kTerms>();
  static constexpr PanelKernels k5_min =
      panel_kernels<QuantBits::b5, ScaleKind::scale_min, kTerms>();
  static constexpr PanelKernels k5_k = panel_kernels<QuantBits::b5, ScaleKind::k_min, kTerms>();
  static constexpr PanelKernels k6_k = panel_kernels<QuantBits::b6, ScaleKind::k6, kTerms>();
  static constexpr PanelKernels k8 = panel_kernels<QuantBits::b8, ScaleKind::scale, kTerms>();
  switch (w.bits) {
    case QuantBits::b4:
      if (w.scale_kind == ScaleKind::scale) return k4;
      return w.scale_kind == ScaleKind::scale_min ? k4_min : k4_k;
    case QuantBits::b5:
      if (w.scale_kind == ScaleKind::scale) return k5;
      return w.scale_kind == ScaleKind::scale_min ? k5_min : k5_k;
    case QuantBits::b6:
      return k6_k;
    case QuantBits::b8:
      break;
  }
  return k8;
}

constexpr int64_t kActivationBytes = 512 << 10;  // of int8 kept in L2 while panels pass

}  // namespace

void matmul_int8(const PanelView& w, const Int8View& x, int64_t first, int64_t last,
                 const Output& y) {
  const PanelKernels& kernels = x.num_terms == 1 ? kernels_for<1>(w) : kernels_for<2>(w);
  const int64_t row_bytes = w.cols * x.num_terms;
  int64_t sweep = kActivationBytes / row_bytes / kTileTokens * kTileTokens;
  if (sweep < kTileTokens) sweep = kTileTokens;
  for (int64_t begin = 0; begin < x.num_tokens; begin += sweep) {
    const int64_t end = begin + sweep < x.num_tokens ? begin + sweep : x.num_tokens;
    for (int64_t panel = first; panel < last; ++panel) {
      const std::byte* data = w.data + panel * w.panel_bytes;
      const int64_t rows = w.rows - panel * kPanelRows;
      const auto mask = static_cast<__mmask16>(rows >= 16 ? 0xffff : (1 << rows) - 1);
      for (int64_t tile = begin; tile < end; tile += kTileTokens) {
        const int64_t step = end - tile < kTileTokens ? end - tile : kTileTokens;
        const int8_t* quants = x.quants + tile * row_bytes;
        const ActivationMeta* metas = x.metas + tile * x.num_blocks;
        Output out{y.data + tile * y.stride + panel * kPanelRows, y.stride, y.add};
        for (int64_t t = 0; t < step;) {
          const int64_t count = step - t > 8 && step - t < kTileTokens ? 8 : step - t;
          kernels.by_tokens[count](w, data, quants + t * x.num_terms * kBlockCols, metas + t, step,
                                   out, mask);
          t += count;
          out.data += count * y.stride;
        }
      }
    }
  }
}

}  // namespace chainpump::kernels::cpu::avx512
