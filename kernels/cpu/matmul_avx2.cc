// Products with int8 activations, AVX2.
//
// Lanes: 8 rows, half a panel; the halves are done one after the other. Quants unpack as in
// matmul_avx512.cc; four broadcast activation bytes meet 8 rows x 4 columns in vpmaddubsw. Its sums
// of two fit 16 bits up to 6 bits of weight (2 * 63 * 127), so those of 2 to 8 groups are added
// before one vpmaddwd widens them; 8-bit weights are taken as signed, |w| times the activation with
// w's sign (2 * 128 * 127 fits), which yields the same exact integer without an offset. The
// floating part is the reference's, operation for operation. Threads: contiguous panels. Bound:
// reading weights for few tokens, then the two multiply pipes.
// Reached on one Zen4 thread (read 29 to 31 GB/s, vpmaddubsw and vpmaddwd 215 Gop/s): one token 17
// to 22 GB/s for 4 and 5 bits, 15 for 8; 512 tokens 112 to 138 Gop/s for 4 and 5 bits, 79 to 105
// for 8, which pay for the sign and the widening of every group.
#include <immintrin.h>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/layout.h"

namespace chainpump::kernels::cpu::avx2 {
namespace {

inline __m256i load(const std::byte* at) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(at));
}

// Of rows 0..7 or 8..15, whose 32 bytes begin at `block` in each vector of 64.
template <QuantBits kBits>
inline __m256i unpack(const std::byte* block, int g) {
  if constexpr (kBits == QuantBits::b8) {
    return _mm256_xor_si256(load(block + 64 * g), _mm256_set1_epi8(-128));  // back to signed
  } else {
    const __m256i both = load(block + 64 * (g % 4));
    const __m256i nibbles =
        _mm256_and_si256(g < 4 ? both : _mm256_srli_epi16(both, 4), _mm256_set1_epi8(0x0f));
    if constexpr (kBits == QuantBits::b5) {
      const __m256i high = load(block + 64 * 4);
      const __m256i at4 = g < 4 ? _mm256_slli_epi16(high, 4 - g) : _mm256_srli_epi16(high, g - 4);
      return _mm256_or_si256(nibbles, _mm256_and_si256(at4, _mm256_set1_epi8(0x10)));
    } else if constexpr (kBits == QuantBits::b6) {
      const __m256i high = load(block + 64 * (4 + g / 4));
      const int at = 2 * (g % 4);
      const __m256i at4 =
          at < 4 ? _mm256_slli_epi16(high, 4 - at) : _mm256_srli_epi16(high, at - 4);
      return _mm256_or_si256(nibbles, _mm256_and_si256(at4, _mm256_set1_epi8(0x30)));
    }
    return nibbles;
  }
}

// Sums of two products, in 16 bits.
template <QuantBits kBits>
inline __m256i multiply(__m256i q, const int8_t* a) {
  const __m256i four = _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(a));
  return kBits == QuantBits::b8
             ? _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(four, q))
             : _mm256_maddubs_epi16(q, four);
}

// Groups whose sums of two products fit 16 bits together: 2 * 127 * the largest quant each.
constexpr int groups_in_16_bits(QuantBits bits) {
  switch (bits) {
    case QuantBits::b4:
      return 8;
    case QuantBits::b5:
      return 4;
    case QuantBits::b6:
      return 2;
    case QuantBits::b8:
      break;
  }
  return 1;
}

// Adds the products of one block with each token's activations to its sums; k6: of the last four
// groups to its seconds.
template <QuantBits kBits, bool kSplit, int kTerms, int kTokens>
inline void add_block(const std::byte* block, const int8_t* quants, __m256i* sums,
                      __m256i* seconds) {
  constexpr int kRun = groups_in_16_bits(kBits);
#pragma GCC unroll 2
  for (int term = 0; term < kTerms; ++term, quants += kBlockCols) {
    const __m256i times = _mm256_set1_epi16(term + 1 < kTerms ? 256 : 1);  // the high bytes
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; g += kRun) {
      __m256i pairs[kTokens];
#pragma GCC unroll 8
      for (int i = 0; i < kRun; ++i) {
        const __m256i q = unpack<kBits>(block, g + i);
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          const __m256i two = multiply<kBits>(q, quants + t * kTerms * kBlockCols + 4 * (g + i));
          pairs[t] = i == 0 ? two : _mm256_add_epi16(pairs[t], two);
        }
      }
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        __m256i& sum = kSplit && g >= 4 ? seconds[t] : sums[t];
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs[t], times));
      }
    }
  }
}

struct Scales {
  __m256 scale;
  __m256 second;  // k6: of columns 16..31; with a minimum: the minimum
};

inline __m256 halves(const std::byte* at) {
  return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(at)));
}
inline __m256 from_unsigned(const std::byte* at) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}
inline __m256 from_signed(const std::byte* at) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}

template <ScaleKind kScale>
inline Scales load_scales(const std::byte* unit, int64_t b, int row) {
  if constexpr (kScale == ScaleKind::scale) {
    return {halves(unit + b * 32 + row * 2), _mm256_setzero_ps()};
  } else if constexpr (kScale == ScaleKind::scale_min) {
    return {halves(unit + row * 2), halves(unit + 32 + row * 2)};
  } else if constexpr (kScale == ScaleKind::k_min) {
    const std::byte* small = unit + 64 + b * 32 + row;
    const __m256 minimum = _mm256_mul_ps(halves(unit + 32 + row * 2), from_unsigned(small + 16));
    return {_mm256_mul_ps(halves(unit + row * 2), from_unsigned(small)),
            _mm256_xor_ps(minimum, _mm256_set1_ps(-0.0f))};
  } else {
    const std::byte* small = unit + 32 + b * 32 + row;
    const __m256 d = halves(unit + row * 2);
    return {_mm256_mul_ps(d, from_signed(small)), _mm256_mul_ps(d, from_signed(small + 16))};
  }
}

template <QuantBits kBits>
inline __m256i start(int32_t neg_sum) {
  if constexpr (kBits == QuantBits::b8) return _mm256_setzero_si256();
  return _mm256_slli_epi32(_mm256_set1_epi32(neg_sum), static_cast<int>(kBits) - 1);
}

constexpr int64_t kAheadBytes = 5120;

template <int64_t kBytes>
inline void fetch_ahead(const std::byte* at) {
#pragma GCC unroll 8
  for (int64_t line = 0; line < kBytes; line += 64)
    _mm_prefetch(reinterpret_cast<const char*>(at + kAheadBytes + line), _MM_HINT_T0);
}

struct Job {
  const std::byte* panel;
  bool fetch;  // the first to read these lines: asks for those ahead in the stream of panels
  const int8_t* quants;
  const ActivationMeta* metas;
  int64_t num_blocks;
  int64_t step;
  int row;  // 0 or 8
  float* y;
  int64_t y_stride;
  int num_rows;  // that exist, 1..8
  bool add;
};

inline void store(const Job& job, int t, __m256 value) {
  float* out = job.y + t * job.y_stride;
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(job.num_rows), lanes);
  if (job.add) value = _mm256_add_ps(_mm256_maskload_ps(out, mask), value);
  _mm256_maskstore_ps(out, mask, value);
}

// kTokens tokens of a tile times half a panel.
template <QuantBits kBits, ScaleKind kScale, int kTerms, int kTokens>
void half_panel_times_tokens(const Job& job) {
  constexpr bool kHasMinimum = kScale == ScaleKind::scale_min || kScale == ScaleKind::k_min;
  constexpr int64_t kBlocks = kUnitBlocks[static_cast<int>(kScale)];
  constexpr int64_t kScaleBytes = kUnitScaleBytes[static_cast<int>(kScale)];
  constexpr int64_t kQuantBytes = static_cast<int>(kBits) * 64;
  const std::byte* block = job.panel;
  const std::byte* unit = nullptr;
  const int8_t* quants = job.quants;
  const ActivationMeta* metas = job.metas;
  __m256 acc[kTokens];
  for (__m256& one : acc) one = _mm256_setzero_ps();
  for (int64_t b = 0; b < job.num_blocks; ++b) {
    if (b % kBlocks == 0) {
      unit = block;
      if (job.fetch) fetch_ahead<kScaleBytes>(block);
      block += kScaleBytes;
    }
    if (job.fetch) fetch_ahead<kQuantBytes>(block);
    __m256i sums[kTokens];
    __m256i seconds[kTokens];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      sums[t] = seconds[t] = _mm256_setzero_si256();
      if constexpr (kScale == ScaleKind::scale) sums[t] = start<kBits>(metas[t].neg_sum);
      if constexpr (kScale == ScaleKind::k6) {
        sums[t] = start<kBits>(metas[t].neg_sum_lo);
        seconds[t] = start<kBits>(metas[t].neg_sum - metas[t].neg_sum_lo);
      }
    }
    add_block<kBits, kScale == ScaleKind::k6, kTerms, kTokens>(block + job.row * 4, quants, sums,
                                                               seconds);
    const Scales s = load_scales<kScale>(unit, b % kBlocks, job.row);
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const __m256 a_scale = _mm256_set1_ps(metas[t].scale);
      acc[t] =
          _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[t]), _mm256_mul_ps(s.scale, a_scale), acc[t]);
      if constexpr (kScale == ScaleKind::k6)
        acc[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(seconds[t]), _mm256_mul_ps(s.second, a_scale),
                                 acc[t]);
      if constexpr (kHasMinimum)
        acc[t] = _mm256_fmadd_ps(s.second, _mm256_set1_ps(metas[t].scaled_sum), acc[t]);
    }
    block += kQuantBytes;
    quants += job.step * kTerms * kBlockCols;
    metas += job.step;
  }
  for (int t = 0; t < kTokens; ++t) store(job, t, acc[t]);
}

using Kernel = void (*)(const Job&);
struct Kernels {
  Kernel by_tokens[5];
};

template <QuantBits kBits, ScaleKind kScale, int kTerms>
constexpr Kernels make_kernels() {
  return {{nullptr, half_panel_times_tokens<kBits, kScale, kTerms, 1>,
           half_panel_times_tokens<kBits, kScale, kTerms, 2>,
           half_panel_times_tokens<kBits, kScale, kTerms, 3>,
           half_panel_times_tokens<kBits, kScale, kTerms, 4>}};
}

template <int kTerms>
const Kernels& kernels_for(const PanelView& w) {
  static constexpr Kernels k4 = make_kernels<QuantBits::b4, ScaleKind::scale, kTerms>();
  static constexpr Kernels k4_min = make_kernels<QuantBits::b4, ScaleKind::scale_min, kTerms>();
  static constexpr Kernels k4_k = make_kernels<QuantBits::b4, ScaleKind::k_min, kTerms>();
  static constexpr Kernels k5 = make_kernels<QuantBits::b5, ScaleKind::scale, kTerms>();
  static constexpr Kernels k5_min = make_kernels<QuantBits::b5, ScaleKind::scale_min, kTerms>();
  static constexpr Kernels k5_k = make_kernels<QuantBits::b5, ScaleKind::k_min, kTerms>();
  static constexpr Kernels k6_k = make_kernels<QuantBits::b6, ScaleKind::k6, kTerms>();
  static constexpr Kernels k8 = make_kernels<QuantBits::b8, ScaleKind::scale, kTerms>();
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

}  // namespace

void matmul_int8(const PanelView& w, const Int8View& x, int64_t first, int64_t last,
                 const Output& y) {
  const Kernels& kernels = x.num_terms == 1 ? kernels_for<1>(w) : kernels_for<2>(w);
  for (int64_t panel = first; panel < last; ++panel) {
    const std::byte* data = w.data + panel * w.panel_bytes;
    for (int row = 0; row < kPanelRows; row += 8) {
      const int64_t rows = w.rows - panel * kPanelRows - row;
      if (rows <= 0) continue;
      Job job{};
      job.panel = data;
      job.num_blocks = x.num_blocks;
      job.row = row;
      job.y_stride = y.stride;
      job.num_rows = rows < 8 ? static_cast<int>(rows) : 8;
      job.add = y.add;
      for (int64_t t = 0; t < x.num_tokens;) {
        const int64_t tile = t / kTileTokens * kTileTokens;
        const int64_t in_tile = t - tile;
        job.step = x.num_tokens - tile < kTileTokens ? x.num_tokens - tile : kTileTokens;
        const int64_t count = job.step - in_tile < 4 ? job.step - in_tile : 4;
        job.quants = x.quants + (tile * x.num_blocks + in_tile) * x.num_terms * kBlockCols;
        job.metas = x.metas + tile * x.num_blocks + in_tile;
        job.y = y.data + t * y.stride + panel * kPanelRows + row;
        job.fetch = row == 0 && t == 0;
        kernels.by_tokens[count](job);
        t += count;
      }
    }
  }
}

}  // namespace chainpump::kernels::cpu::avx2
