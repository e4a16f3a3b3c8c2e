// Products in f32 and bf16, AVX2: 8 rows (half a panel) times up to 8 tokens, one fma per column
// and token (two per pair of bf16), columns ascending. Threads: contiguous panels. Bound: reading
// weights for few tokens (one token is held back by the latency of its chain), else the fma peak.
#include <immintrin.h>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/layout.h"

namespace chainpump::kernels::cpu::avx2 {
namespace {

struct Job {
  const std::byte* panel;
  int row;  // 0 or 8
  const std::byte* x;
  int64_t num_runs;
  int64_t step;
  float* y;
  int64_t y_stride;
  int num_rows;
  bool add;
};

inline __m256 high_half(__m256i pair) {
  return _mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32(-65536)));
}
inline __m256 low_half(__m256i pair) { return _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)); }

template <PanelKind kKind>
inline __m256 load_weights(const Job& job, int64_t run) {
  const int64_t at = run * kPanelRows + job.row;
  if constexpr (kKind == PanelKind::f32) {
    return _mm256_load_ps(reinterpret_cast<const float*>(job.panel) + at);
  } else {
    const __m128i bits = _mm_load_si128(reinterpret_cast<const __m128i*>(job.panel + at * 2));
    if constexpr (kKind == PanelKind::f16) return _mm256_cvtph_ps(bits);
    return low_half(_mm256_cvtepu16_epi32(bits));
  }
}

template <PanelKind kKind, int kTokens>
void half_panel_times_tokens(const Job& job) {
  __m256 acc[kTokens];
  for (__m256& one : acc) one = _mm256_setzero_ps();
  const std::byte* x = job.x;
  for (int64_t run = 0; run < job.num_runs; ++run, x += job.step * 4) {
    if constexpr (kKind == PanelKind::bf16_pairs) {
      const __m256i pair = _mm256_load_si256(
          reinterpret_cast<const __m256i*>(job.panel + (run * kPanelRows + job.row) * 4));
      const __m256 odd = high_half(pair);
      const __m256 even = low_half(pair);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const __m256i a = _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(x + t * 4));
        acc[t] = _mm256_fmadd_ps(odd, high_half(a), acc[t]);
        acc[t] = _mm256_fmadd_ps(even, low_half(a), acc[t]);
      }
    } else {
      const __m256 w = load_weights<kKind>(job, run);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t)
        acc[t] = _mm256_fmadd_ps(w, _mm256_broadcast_ss(reinterpret_cast<const float*>(x + t * 4)),
                                 acc[t]);
    }
  }
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(job.num_rows), lanes);
  for (int t = 0; t < kTokens; ++t) {
    float* out = job.y + t * job.y_stride;
    if (job.add) acc[t] = _mm256_add_ps(_mm256_maskload_ps(out, mask), acc[t]);
    _mm256_maskstore_ps(out, mask, acc[t]);
  }
}

using Kernel = void (*)(const Job&);
struct Kernels {
  Kernel by_power[4];
};

template <PanelKind kKind>
constexpr Kernels make_kernels() {
  return {{half_panel_times_tokens<kKind, 1>, half_panel_times_tokens<kKind, 2>,
           half_panel_times_tokens<kKind, 4>, half_panel_times_tokens<kKind, 8>}};
}

void run(const Kernels& kernels, const PanelView& w, const std::byte* x, int64_t num_runs,
         int64_t num_tokens, int64_t first, int64_t last, const Output& y) {
  for (int64_t panel = first; panel < last; ++panel) {
    for (int row = 0; row < kPanelRows; row += 8) {
      const int64_t rows = w.rows - panel * kPanelRows - row;
      if (rows <= 0) continue;
      Job job{};
      job.panel = w.data + panel * w.panel_bytes;
      job.row = row;
      job.num_runs = num_runs;
      job.y_stride = y.stride;
      job.num_rows = rows < 8 ? static_cast<int>(rows) : 8;
      job.add = y.add;
      for (int64_t t = 0; t < num_tokens;) {
        const int64_t tile = t / kTileTokens * kTileTokens;
        job.step = num_tokens - tile < kTileTokens ? num_tokens - tile : kTileTokens;
        const int64_t left = job.step - (t - tile);
        const int power = left >= 8 ? 3 : left >= 4 ? 2 : left >= 2 ? 1 : 0;
        job.x = x + (tile * num_runs + (t - tile)) * 4;
        job.y = y.data + t * y.stride + panel * kPanelRows + row;
        kernels.by_power[power](job);
        t += int64_t{1} << power;
      }
    }
  }
}

}  // namespace

void matmul_f32(const PanelView& w, const F32View& x, int64_t first, int64_t last,
                const Output& y) {
  static constexpr Kernels kF32 = make_kernels<PanelKind::f32>();
  static constexpr Kernels kF16 = make_kernels<PanelKind::f16>();
  static constexpr Kernels kBf16 = make_kernels<PanelKind::bf16>();
  const Kernels& kernels = w.kind == PanelKind::f16    ? kF16
                           : w.kind == PanelKind::bf16 ? kBf16
                                                       : kF32;
  run(kernels, w, reinterpret_cast<const std::byte*>(x.data), x.cols, x.num_tokens, first, last, y);
}

void matmul_bf16(const PanelView& w, const Bf16View& x, int64_t first, int64_t last,
                 const Output& y) {
  static constexpr Kernels kPairs = make_kernels<PanelKind::bf16_pairs>();
  run(kPairs, w, reinterpret_cast<const std::byte*>(x.data), x.num_pairs, x.num_tokens, first, last,
      y);
}

}  // namespace chainpump::kernels::cpu::avx2
