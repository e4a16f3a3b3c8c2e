// Attention for a tile of up to 32 queries that share a KV head, AVX-512; arithmetic and layout as
// attention_tile.h states them.
//
// Lanes of the scores are positions, lanes of the values dimensions, so neither product has a
// horizontal sum. A block of 32 keys is multiplied with 8 queries at a time while it lies in L1 (4
// for the values), the softmax runs once per 128 keys. Nothing of a query depends on the others of
// the tile: positions it may not see are left out, not multiplied by zero (exact integers aside).
// Bound: few queries (decode) read K and V once, from memory; many do 2 * 128 * head_dim
// multiply-adds per query and step at the peak of fma (f32, f16), vdpbf16ps or vpdpbusd (int8,
// whose values take two), plus about 150 other vector operations.
// Reached (Zen4, heads 9/3 of 64, 256 tokens at 4096 keys, one thread, nearly twice that on two):
// f32 86 Gop/s (0.73 of the peak), f16 96 (0.82), bf16 157 (0.70), int8 161 (0.52). Decode at 8192
// keys from cold memory on one thread, with each step fetched into L2 during the one before: f32
// 18, f16 22, bf16 16, int8 14 GB/s of a sweep's 23 to 30; on two f32 26, f16 27, bf16 25, int8 18.
#include "kernels/cpu/attention_softmax_avx512.h"
#include "kernels/cpu/avx512.h"

namespace chainpump::kernels::cpu::avx512 {
namespace {

constexpr int kWholeBytes = 16 << 10;

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
      job.far = state.is_read_once;
      job.ahead = state.is_read_once            ? state.next_blocks[b]
                  : !first                      ? nullptr
                  : (b + 1) * kBlock < max_keys ? state.blocks[b + 1]
                                                : state.blocks[0] + v_offset;
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

inline const uint32_t* weights_at(const State& state, int i, int half, int run) {
  return reinterpret_cast<const uint32_t*>(state.p[i]) + half * (kKeyStep / 4) + run;
}

// Values of queries [g, g + count) with block b, out in step_out[half].
template <DType kType>
void value_group(int g, int count, int b, int width, int half, bool fetch, State& state) {
  constexpr int kRun = run_of(kType);
  const int64_t v_offset = int64_t{width} * kBlock * element_bytes(kType);
  const int64_t row = int64_t{width} / 16 * vector_bytes(kType);
  const auto visible = [&](int i) {
    const int keys = state.num_keys[i] - b * kBlock;
    return keys <= 0 ? 0 : smaller(keys, kBlock);
  };
  // Positions ascend: the first query sees the fewest keys of the group, the last the most.
  const int runs = kType == DType::int8 ? (visible(g + count - 1) + 3) / 4 : visible(g) / kRun;
  const int first_run = b * kBlock / kRun;
  ValueJob job{};
  job.blocks = state.blocks + b;
  job.ahead = fetch ? state.values_ahead + b : nullptr;
  job.far = state.is_read_once;
  job.num_blocks = 1;
  job.offset = v_offset;
  job.p = weights_at(state, g, half, first_run);
  job.out = state.step_out[half] + g * width;
  job.num_runs = runs;
  job.width = width;
  if (runs > 0) value_block<kType>(count, job);
  if (kType == DType::int8) return;
  job.ahead = nullptr;
  job.offset += runs * row;
  for (int i = g; i < g + count; ++i, job.out += width) {
    const int mine = visible(i) / kRun;
    job.p = weights_at(state, i, half, first_run + runs);
    job.num_runs = mine - runs;
    if (mine > runs) value_block<kType>(1, job);
    if (kType == DType::bf16 && visible(i) % 2 != 0) {
      const __m512 weight = broadcast(*weights_at(state, i, half, first_run + mine) << 16);
      even_value(state.blocks[b] + v_offset + mine * row, _mm512_cvtss_f32(weight), width, job.out);
    }
  }
}

// The same with all blocks of a step that every query of the group sees whole: the sums stay in
// registers. Only where V of the step and its weights fit L1 beside each other.
template <DType kType>
void value_group_whole(int g, int count, int width, int half, bool fetch, State& state) {
  ValueJob job{};
  job.blocks = state.blocks;
  job.ahead = fetch ? state.values_ahead : nullptr;
  job.far = state.is_read_once;
  job.num_blocks = kBlocks;
  job.offset = int64_t{width} * kBlock * element_bytes(kType);
  job.p = weights_at(state, g, half, 0);
  job.out = state.step_out[half] + g * width;
  job.num_runs = kBlock / run_of(kType);
  job.width = width;
  value_block<kType>(count, job);
}

template <DType kType>
void value_step(const AttentionTile& tile, State& state) {
  constexpr int kHalves = kType == DType::int8 ? 2 : 1;
  const int width = stored_dim(tile.head_dim);
  const int64_t floats = int64_t{tile.num_queries} * width;
  for (int half = 0; half < kHalves; ++half)
    for (int64_t d = 0; d < floats; d += 16)
      _mm512_store_ps(state.step_out[half] + d, _mm512_setzero_ps());
  const int n = tile.num_queries;
  const bool fits = width * kKeyStep * element_bytes(kType) <= kWholeBytes || n <= 4;
  bool fetch = true;
  const auto is_whole = [&](int g) { return fits && state.num_keys[g] == kKeyStep; };
  for (int g = 0; g < n; g += 4) {
    if (!is_whole(g)) continue;
    for (int half = 0; half < kHalves; ++half, fetch = false)
      value_group_whole<kType>(g, smaller(4, n - g), width, half, fetch, state);
  }
  const int max_keys = state.num_keys[n - 1];
  for (int b = 0; b * kBlock < max_keys; ++b) {
    bool fetch_block = fetch;
    for (int g = 0; g < n; g += 4) {
      const int count = smaller(4, n - g);
      if (is_whole(g) || state.num_keys[g + count - 1] <= b * kBlock) continue;
      for (int half = 0; half < kHalves; ++half, fetch_block = false)
        value_group<kType>(g, count, b, width, half, fetch_block, state);
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

void open_step(const AttentionTile& tile, int step, int64_t v_offset, State& state) {
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
  const auto block_at = [&](int index) {
    return tile.head_data + tile.block_table[smaller(index, last_block)] * tile.block_stride;
  };
  for (int b = 0; b < kBlocks; ++b) {
    state.blocks[b] = block_at(begin / kBlock + b);
    state.next_blocks[b] = block_at(begin / kBlock + kBlocks + b);
  }
  state.is_read_once = tile.num_queries <= kGroup;
  if (state.is_read_once) {
    for (int b = 0; b < kBlocks; ++b) state.values_ahead[b] = state.next_blocks[b] + v_offset;
    return;
  }
  // After V of a block comes V of the next, after the last K of the next step.
  for (int b = 0; b + 1 < kBlocks; ++b) state.values_ahead[b] = state.blocks[b + 1] + v_offset;
  state.values_ahead[kBlocks - 1] = state.next_blocks[0];
}

template <DType kType>
void run_tile(const AttentionTile& tile) {
  State state;
  start<kType>(tile, state);
  const int width = stored_dim(tile.head_dim);
  const int64_t v_scale_offset = int64_t{2} * width * kBlock * element_bytes(kType) + kBlock * 4;
  for (int step = tile.step_begin; step < tile.step_end; ++step) {
    open_step(tile, step, int64_t{width} * kBlock * element_bytes(kType), state);
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
