// Products in f32 and bf16, AVX2: 8 rows (half a panel) times up to 8 tokens, one fma per column
// and token (two per pair of bf16), columns ascending. Eight running sums hide the latency: of 8
// tokens, or of fewer tokens and several halves. Threads: contiguous panels. Bound: reading weights
// for few tokens, else the fma peak. Reached on one Zen4 thread (read 30 GB/s, fma 118 Gop/s): one
// token 23 to 29 GB/s; 512 tokens 84 to 90 Gop/s (bf16, f16).
#include <immintrin.h>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/layout.h"

namespace chainpump::kernels::cpu::avx2 {
namespace {

// A half is 8 rows of a panel.
struct Half {
  const std::byte* panel;
  int row;  // 0 or 8
  int num_rows;
};

constexpr int kHalvesMax = 8;

struct Job {
  Half halves[kHalvesMax];
  const std::byte* x;
  int64_t num_runs;
  int64_t step;
  float* y;  // of the first half
  int64_t y_stride;
  bool add;
};

inline __m256 high_half(__m256i pair) {
  return _mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32(-65536)));
}
inline __m256 low_half(__m256i pair) { return _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)); }

template <PanelKind kKind>
inline __m256 load_weights(const Half& half, int64_t run) {
  const int64_t at = run * kPanelRows + half.row;
  if constexpr (kKind == PanelKind::f32) {
    return _mm256_load_ps(reinterpret_cast<const float*>(half.panel) + at);
  } else {
    const __m128i bits = _mm_load_si128(reinterpret_cast<const __m128i*>(half.panel + at * 2));
    if constexpr (kKind == PanelKind::f16) return _mm256_cvtph_ps(bits);
    return low_half(_mm256_cvtepu16_epi32(bits));
  }
}

// acc[t] += the products of one column, or of a pair of columns.
template <PanelKind kKind, int kTokens>
inline void add_run(const Half& half, int64_t run, const std::byte* x, __m256* acc) {
  if constexpr (kKind == PanelKind::bf16_pairs) {
    const __m256i pair = _mm256_load_si256(
        reinterpret_cast<const __m256i*>(half.panel + (run * kPanelRows + half.row) * 4));
    const __m256 odd = high_half(pair);
    const __m256 even = low_half(pair);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const __m256i a = _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(x + t * 4));
      acc[t] = _mm256_fmadd_ps(odd, high_half(a), acc[t]);
      acc[t] = _mm256_fmadd_ps(even, low_half(a), acc[t]);
    }
  } else {
    const __m256 w = load_weights<kKind>(half, run);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t)
      acc[t] = _mm256_fmadd_ps(w, _mm256_broadcast_ss(reinterpret_cast<const float*>(x + t * 4)),
                               acc[t]);
  }
}

template <PanelKind kKind, int kTokens, int kHalves>
void halves_times_tokens(const Job& job) {
  __m256 acc[kHalves][kTokens];
#pragma GCC unroll 8
  for (int h = 0; h < kHalves; ++h)
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) acc[h][t] = _mm256_setzero_ps();
  const std::byte* x = job.x;
  for (int64_t run = 0; run < job.num_runs; ++run, x += job.step * 4) {
#pragma GCC unroll 8
    for (int h = 0; h < kHalves; ++h) add_run<kKind, kTokens>(job.halves[h], run, x, acc[h]);
  }
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
#pragma GCC unroll 8
  for (int h = 0; h < kHalves; ++h) {
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(job.halves[h].num_rows), lanes);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      float* out = job.y + t * job.y_stride + 8 * h;
      if (job.add) acc[h][t] = _mm256_add_ps(_mm256_maskload_ps(out, mask), acc[h][t]);
      _mm256_maskstore_ps(out, mask, acc[h][t]);
    }
  }
}

using Kernel = void (*)(const Job&);

// By number of tokens (powers of two), for one half and for as many as make eight running sums.
struct Kernels {
  Kernel one[4];
  Kernel several[4];
};

template <PanelKind kKind>
constexpr Kernels make_kernels() {
  return {{halves_times_tokens<kKind, 1, 1>, halves_times_tokens<kKind, 2, 1>,
           halves_times_tokens<kKind, 4, 1>, halves_times_tokens<kKind, 8, 1>},
          {halves_times_tokens<kKind, 1, 8>, halves_times_tokens<kKind, 2, 4>,
           halves_times_tokens<kKind, 4, 2>, halves_times_tokens<kKind, 8, 1>}};
}

// All halves of the job times 2^power tokens.
void run_halves(const Kernels& kernels, const Job& job, int num_halves, int power) {
  for (int h = 0; h < num_halves;) {
    const bool fits = num_halves - h >= kHalvesMax >> power;
    const int count = fits ? kHalvesMax >> power : 1;
    Job part = job;
    for (int i = 0; i < count; ++i) part.halves[i] = job.halves[h + i];
    part.y = job.y + 8 * h;
    (fits ? kernels.several : kernels.one)[power](part);
    h += count;
  }
}

// Few tokens take eight halves together, many one after the other, which then stays in L1.
void run(const Kernels& kernels, const PanelView& w, const std::byte* x, int64_t num_runs,
         int64_t num_tokens, int64_t first, int64_t last, const Output& y) {
  const int64_t end = last * 2 < (w.rows + 7) / 8 ? last * 2 : (w.rows + 7) / 8;
  const int64_t group = num_tokens < 8 ? kHalvesMax : 1;
  for (int64_t half = first * 2; half < end; half += group) {
    const int num_halves = static_cast<int>(end - half < group ? end - half : group);
    Job job{};
    for (int i = 0; i < num_halves; ++i) {
      const int64_t row = (half + i) * 8;
      const int64_t rows = w.rows - row;
      job.halves[i] = {w.data + row / kPanelRows * w.panel_bytes,
                       static_cast<int>(row % kPanelRows), rows < 8 ? static_cast<int>(rows) : 8};
    }
    job.num_runs = num_runs;
    job.y_stride = y.stride;
    job.add = y.add;
    for (int64_t t = 0; t < num_tokens;) {
      const int64_t tile = t / kTileTokens * kTileTokens;
      job.step = num_tokens - tile < kTileTokens ? num_tokens - tile : kTileTokens;
      const int64_t left = job.step - (t - tile);
      const int power = left >= 8 ? 3 : left >= 4 ? 2 : left >= 2 ? 1 : 0;
      job.x = x + (tile * num_runs + (t - tile)) * 4;
      job.y = y.data + t * y.stride + half * 8;
      run_halves(kernels, job, num_halves, power);
      t += int64_t{1} << power;
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
