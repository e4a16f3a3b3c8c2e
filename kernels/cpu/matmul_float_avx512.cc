// Products in f32 and bf16, AVX-512.
//
// Lanes: the 16 rows of a panel; one fma (or vdpbf16ps for a pair of columns) per column and token,
// columns ascending. Several running sums hide the latency: up to 16 tokens of one panel, or, for
// few tokens, two to four panels side by side. Threads: contiguous panels. Memory: the weights once
// per 512 KiB of activations. Bound: reading weights for few tokens, else the fma (vdpbf16ps) peak.
// Reached on one Zen4 thread (read 25 GB/s): one token 21 to 27 GB/s; 512 tokens 173 to 203 Gop/s
// bf16 (0.74 to 0.87 of the peak) and 101 to 110 f16 (0.87 to 0.95).
#include <immintrin.h>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/layout.h"

namespace chainpump::kernels::cpu::avx512 {
namespace {

constexpr int64_t kActivationBytes = 512 << 10;

struct Job {
  const std::byte* panels[4];
  const std::byte* x;  // of the first token
  int64_t num_runs;    // columns, or pairs of columns
  int64_t step;        // tokens in the tile
  float* y;
  int64_t y_stride;
  bool add;
  __mmask16 rows[4];
};

template <PanelKind kKind>
inline __m512 load_weights(const std::byte* panel, int64_t run) {
  if constexpr (kKind == PanelKind::f16) {
    return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(panel) + run));
  } else if constexpr (kKind == PanelKind::bf16) {
    const __m256i bits = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel) + run);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  } else {
    return _mm512_load_ps(reinterpret_cast<const float*>(panel) + run * 16);
  }
}

template <PanelKind kKind>
inline __m512 multiply_add(__m512 acc, __m512 w, const std::byte* x) {
  if constexpr (kKind == PanelKind::bf16_pairs) {
    // The broadcast is part of the instruction; GCC 12 has no pattern for it.
    asm("vdpbf16ps %2%{1to16%}, %1, %0"
        : "+v"(acc)
        : "v"(w), "m"(*reinterpret_cast<const int32_t*>(x)));
    return acc;
  } else {
    return _mm512_fmadd_ps(w, _mm512_set1_ps(*reinterpret_cast<const float*>(x)), acc);
  }
}

template <PanelKind kKind, int kTokens, int kPanels>
void panels_times_tokens(const Job& job) {
  __m512 acc[kPanels][kTokens];
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p)
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) acc[p][t] = _mm512_setzero_ps();
  const std::byte* x = job.x;
  for (int64_t run = 0; run < job.num_runs; ++run, x += job.step * 4) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const __m512 w = load_weights<kKind>(job.panels[p], run);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) acc[p][t] = multiply_add<kKind>(acc[p][t], w, x + t * 4);
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      float* out = job.y + t * job.y_stride + p * kPanelRows;
      if (job.add) acc[p][t] = _mm512_add_ps(_mm512_maskz_loadu_ps(job.rows[p], out), acc[p][t]);
      _mm512_mask_storeu_ps(out, job.rows[p], acc[p][t]);
    }
  }
}

using Kernel = void (*)(const Job&);

// By number of tokens (powers of two), for one panel and for several.
struct Kernels {
  Kernel one[5];
  Kernel several[3];
};

template <PanelKind kKind>
constexpr Kernels make_kernels() {
  return {{panels_times_tokens<kKind, 1, 1>, panels_times_tokens<kKind, 2, 1>,
           panels_times_tokens<kKind, 4, 1>, panels_times_tokens<kKind, 8, 1>,
           panels_times_tokens<kKind, 16, 1>},
          {panels_times_tokens<kKind, 1, 4>, panels_times_tokens<kKind, 2, 4>,
           panels_times_tokens<kKind, 4, 4>}};
}

// Tokens [begin, end) of one tile, in powers of two, times `num_panels` panels.
void run_tile(const Kernels& kernels, Job job, int num_panels, int64_t num_tokens) {
  for (int power = 4; power >= 0; --power) {
    const int64_t count = int64_t{1} << power;
    while (num_tokens >= count) {
      if (num_panels == 4 && power < 3) {
        kernels.several[power](job);
      } else {
        Job single = job;
        for (int p = 0; p < num_panels; ++p) {
          single.panels[0] = job.panels[p];
          single.rows[0] = job.rows[p];
          single.y = job.y + p * kPanelRows;
          kernels.one[power](single);
        }
      }
      job.x += count * 4;
      job.y += count * job.y_stride;
      num_tokens -= count;
    }
  }
}

void run(const Kernels& kernels, const PanelView& w, const std::byte* x, int64_t num_runs,
         int64_t num_tokens, int64_t first, int64_t last, const Output& y) {
  int64_t sweep = kActivationBytes / (num_runs * 4) / kTileTokens * kTileTokens;
  if (sweep < kTileTokens) sweep = kTileTokens;
  for (int64_t begin = 0; begin < num_tokens; begin += sweep) {
    const int64_t end = begin + sweep < num_tokens ? begin + sweep : num_tokens;
    for (int64_t panel = first; panel < last; panel += 4) {
      Job job{};
      const int num_panels = last - panel < 4 ? static_cast<int>(last - panel) : 4;
      for (int p = 0; p < num_panels; ++p) {
        job.panels[p] = w.data + (panel + p) * w.panel_bytes;
        const int64_t rows = w.rows - (panel + p) * kPanelRows;
        job.rows[p] = static_cast<__mmask16>(rows >= 16 ? 0xffff : (1 << rows) - 1);
      }
      job.num_runs = num_runs;
      job.y_stride = y.stride;
      job.add = y.add;
      for (int64_t tile = begin; tile < end; tile += kTileTokens) {
        job.step = end - tile < kTileTokens ? end - tile : kTileTokens;
        job.x = x + tile * num_runs * 4;
        job.y = y.data + tile * y.stride + panel * kPanelRows;
        run_tile(kernels, job, num_panels, job.step);
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

}  // namespace chainpump::kernels::cpu::avx512
