// Attention for a tile of up to 32 queries that share a KV head, AVX-512; arithmetic and layout as
// attention_tile.h states them.
//
// Lanes of the scores are positions, lanes of the values dimensions, so neither product has a
// horizontal sum. A block of 32 keys is multiplied with 8 queries at a time while it lies in L1 (4
// for the values), the softmax runs once per 128 keys. Nothing of a query depends on the others of
// the tile: positions it may not see are left out, not multiplied by zero (exact integers aside).
// Bound: few queries (decode) read K and V once, from memory; many do 2 * 128 * head_dim
// multiply-adds per query and step at the peak of fma (f32, f16), vdpbf16ps or vpdpbusd (int8,
// whose values take two), plus about 150 other vector operations. Reached (Zen4, heads 9/3 of 64,
// 256 tokens at 4096 keys, one thread, twice that on two): f32 86 and f16 87 Gop/s (0.73 of the
// peak), bf16 136 (0.58), int8 154 (0.49). Decode at 8192 keys from cold memory: f32 12 GB/s on one
// thread, 23 on two; int8 9 and 16.
#include "kernels/cpu/attention_softmax_avx512.h"
#include "kernels/cpu/avx512.h"

namespace chainpump::kernels::cpu::avx512 {
namespace {

template <DType kType>
void score_step(const AttentionTile& tile, State& state) {
  const int width = stored_dim(tile.head_dim);
  const int num_runs = (tile.head_dim + run_of(kType) - 1) / run_of(kType);
  const int64_t v_offset = int64_t{width} * kBlock * element_bytes(kType);
  const int max_keys = state.num_keys[tile.num_queries - 1];
  for (int b = 0; b * kBlock < max_keys; ++b) {
    bool first = true;
    for (int g = 0; g < tile.num_queries; g += kGroup) {
      const int count = smaller(kGroup, tile.num_queries - g);
      if (state.num_keys[g + count - 1] <= b * kBlock) continue;
      ScoreJob job;
      job.k = state.blocks[b];
      job.ahead = first ? state.blocks[b] + v_offset : nullptr;
      job.k_scale = reinterpret_cast<const float*>(state.blocks[b] + 2 * v_offset);
      job.q = state.q + g * (width / run_of(kType));
      job.q_scale = state.q_scale + g;
      job.q_bias = state.q_bias + g;
      job.s = state.p[g] + b * kBlock;
      job.num_runs = num_runs;
      kScores<kType>[count](job);
      first = false;
    }
  }
}

// Values of queries [g, g + count) with block b, out in step_out[half].
template <DType kType>
void value_group(int g, int count, int b, int width, int half, const std::byte* ahead,
                 State& state) {
  constexpr int kRun = run_of(kType);
  const int64_t v_offset = int64_t{width} * kBlock * element_bytes(kType);
  const std::byte* v = state.blocks[b] + v_offset;
  const int64_t row = int64_t{width} / 16 * vector_bytes(kType);
  const auto visible = [&](int i) {
    const int keys = state.num_keys[i] - b * kBlock;
    return keys <= 0 ? 0 : smaller(keys, kBlock);
  };
  // Positions ascend: the first query sees the fewest keys of the group, the last the most.
  const int runs = kType == DType::int8 ? (visible(g + count - 1) + 3) / 4 : visible(g) / kRun;
  const auto p_at = [&](int i, int run) {
    return reinterpret_cast<const uint32_t*>(state.p[i]) + half * (kKeyStep / 4) +
           b * kBlock / kRun + run;
  };
  float* out = state.step_out[half] + g * width;
  if (runs > 0) value_block<kType>(count, {v, ahead, p_at(g, 0), out, runs, width});
  if (kType == DType::int8) return;
  for (int i = g; i < g + count; ++i, out += width) {
    const int mine = visible(i) / kRun;
    if (mine > runs)
      value_block<kType>(1, {v + runs * row, nullptr, p_at(i, runs), out, mine - runs, width});
    if (kType == DType::bf16 && visible(i) % 2 != 0) {
      const __m512 weight = broadcast(*p_at(i, mine) << 16);
      even_value(v + mine * row, _mm512_cvtss_f32(weight), width, out);
    }
  }
}

template <DType kType>
void value_step(const AttentionTile& tile, State& state) {
  constexpr int kHalves = kType == DType::int8 ? 2 : 1;
  const int width = stored_dim(tile.head_dim);
  const int64_t floats = int64_t{tile.num_queries} * width;
  for (int half = 0; half < kHalves; ++half)
    for (int64_t d = 0; d < floats; d += 16)
      _mm512_store_ps(state.step_out[half] + d, _mm512_setzero_ps());
  const int max_keys = state.num_keys[tile.num_queries - 1];
  for (int b = 0; b * kBlock < max_keys; ++b) {
    const std::byte* ahead = state.next_blocks[b];
    for (int g = 0; g < tile.num_queries; g += 4) {
      const int count = smaller(4, tile.num_queries - g);
      if (state.num_keys[g + count - 1] <= b * kBlock) continue;
      for (int half = 0; half < kHalves; ++half) {
        value_group<kType>(g, count, b, width, half, ahead, state);
        ahead = nullptr;
      }
    }
  }
  if (kType != DType::int8) return;
  for (int i = 0; i < tile.num_queries; ++i) {
    const __m512 scale = _mm512_set1_ps(state.weight_scale[i]);
    for (int d = i * width; d < (i + 1) * width; d += 16) {
      const __m512i high = _mm512_load_si512(state.step_out[0] + d);
      const __m512i low = _mm512_load_si512(state.step_out[1] + d);
      const __m512i whole = _mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
      _mm512_store_ps(state.step_out[0] + d, _mm512_mul_ps(_mm512_cvtepi32_ps(whole), scale));
    }
  }
}

// Takes a finished step into the totals, or keeps it for attention_merge().
void finish_step(const AttentionTile& tile, int step, State& state) {
  const int width = stored_dim(tile.head_dim);
  if (tile.partials == nullptr) merge_sums(state);
  for (int i = 0; i < tile.num_queries; ++i) {
    if (state.num_keys[i] == 0) continue;
    const float* from = state.step_out[0] + i * width;
    if (tile.partials == nullptr) {
      merge_row(from, state.before[i], state.added[i], width, state.out + i * width);
      continue;
    }
    float* to = tile.partials + (int64_t{step} * tile.num_queries + i) * tile.partial_stride;
    for (int d = 0; d < width; d += 16) _mm512_storeu_ps(to + d, _mm512_load_ps(from + d));
    to[tile.partial_stride - 2] = state.step_largest[i];
    to[tile.partial_stride - 1] = state.step_sum[i];
  }
}

void open_step(const AttentionTile& tile, int step, State& state) {
  const int begin = step * kKeyStep;
  for (int i = 0; i < tile.num_queries; ++i) {
    const int keys = tile.position[i] + 1 - begin;
    state.num_keys[i] = keys <= 0 ? 0 : smaller(keys, kKeyStep);
    if (keys <= 0) {  // a step that adds nothing
      state.step_largest[i] = -__builtin_inff();
      state.step_sum[i] = 0;
    }
  }
  const int last_block = tile.position[tile.num_queries - 1] / kBlock;
  for (int b = 0; b < kBlocks; ++b) {
    const int here = smaller(begin / kBlock + b, last_block);
    const int next = smaller(begin / kBlock + kBlocks + b, last_block);
    state.blocks[b] = tile.head_data + tile.block_table[here] * tile.block_stride;
    state.next_blocks[b] = tile.head_data + tile.block_table[next] * tile.block_stride;
  }
}

template <DType kType>
void run_tile(const AttentionTile& tile) {
  State state;
  start<kType>(tile, state);
  const int width = stored_dim(tile.head_dim);
  const int64_t v_scale_offset = int64_t{2} * width * kBlock * element_bytes(kType) + kBlock * 4;
  for (int step = tile.step_begin; step < tile.step_end; ++step) {
    open_step(tile, step, state);
    score_step<kType>(tile, state);
    for (int i = 0; i < tile.num_queries; ++i) {
      if (state.num_keys[i] == kKeyStep)
        softmax<kType, true>(i, v_scale_offset, state);
      else if (state.num_keys[i] > 0)
        softmax<kType, false>(i, v_scale_offset, state);
    }
    value_step<kType>(tile, state);
    finish_step(tile, step, state);
  }
  if (tile.partials != nullptr) return;
  for (int i = 0; i < tile.num_queries; ++i)
    write_row(state.out + i * width, state.sum[i], tile.head_dim, tile.out[i]);
}

}  // namespace

void attention_tile(const AttentionTile& tile) {
  if (tile.type == DType::f32)
    run_tile<DType::f32>(tile);
  else if (tile.type == DType::f16)
    run_tile<DType::f16>(tile);
  else if (tile.type == DType::bf16)
    run_tile<DType::bf16>(tile);
  else
    run_tile<DType::int8>(tile);
}

void attention_merge(const AttentionTile& tile, int first_query, int last_query) {
  const int width = stored_dim(tile.head_dim);
  alignas(64) float out[kMaxHeadDim];
  for (int i = first_query; i < last_query; ++i) {
    for (int d = 0; d < width; d += 16) _mm512_store_ps(out + d, _mm512_setzero_ps());
    float largest = -__builtin_inff();
    float sum = 0;
    for (int s = 0; s * kKeyStep <= tile.position[i]; ++s) {
      const float* from = tile.partials + (int64_t{s} * tile.num_queries + i) * tile.partial_stride;
      const float step_largest = from[tile.partial_stride - 2];
      const float now = largest > step_largest ? largest : step_largest;
      const float before = exp2_one(largest - now);
      const float added = exp2_one(step_largest - now);
      largest = now;
      sum = __builtin_fmaf(from[tile.partial_stride - 1], added, sum * before);
      merge_row(from, before, added, width, out);
    }
    write_row(out, sum, tile.head_dim, tile.out[i]);
  }
}

}  // namespace chainpump::kernels::cpu::avx512
