// Attention for the queries of a tile, one after the other, and the filling of a KV block, as
// attention_tile.h states them.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/half.h"
#include "base/kv_layout.h"
#include "kernels/cpu/math_scalar.h"
#include "kernels/cpu/reference.h"

namespace chainpump::kernels::cpu::reference {
namespace {

constexpr float kWeightLevels = 32767.0f;

template <typename T>
T load(const std::byte* base, int64_t index) {
  T value;
  std::memcpy(&value, base + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

template <typename T>
void store(std::byte* base, int64_t index, T value) {
  std::memcpy(base + index * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
}

int run_of(DType type) { return type == DType::int8 ? 4 : type == DType::bf16 ? 2 : 1; }
int64_t element_bytes(DType type) { return type == DType::f32 ? 4 : type == DType::int8 ? 1 : 2; }

// One block and head.
struct Block {
  DType type;
  int64_t width;
  const std::byte* k;
  const std::byte* v;
  const std::byte* scales;

  Block(DType dtype, int64_t head_dim, const std::byte* base)
      : type(dtype), width(kv_stored_dim(head_dim)), k(base) {
    v = k + width * kKvBlockTokens * element_bytes(type);
    scales = v + width * kKvBlockTokens * element_bytes(type);
  }
  int64_t key_at(int token, int d) const {
    const int run = run_of(type);
    return (int64_t{d / run} * kKvBlockTokens + token) * run + d % run;
  }
  int64_t value_at(int token, int d) const {
    const int run = run_of(type);
    return (token / run * width + d) * run + token % run;
  }
  float value_f32(const std::byte* base, int64_t at) const {
    if (type == DType::f32) return load<float>(base, at);
    const auto bits = load<uint16_t>(base, at);
    return type == DType::f16 ? f16_to_float(bits) : bf16_to_float(bits);
  }
  int32_t key_int8(int token, int d) const {
    return int32_t{load<uint8_t>(k, key_at(token, d))} - 128;
  }
  int32_t value_int8(int token, int d) const { return load<int8_t>(v, value_at(token, d)); }
  float key_scale(int token) const { return load<float>(scales, token); }
  float value_scale(int token) const { return load<float>(scales, kKvBlockTokens + token); }
};

// A row rounded to int8 with one scale. Not a number stays one through the scale; rows under 1e-30
// are zero.
struct Int8Row {
  float scale;
  int8_t quants[kMaxHeadDim] = {};

  Int8Row(const float* x, int count) {
    uint32_t largest = 0;  // of the magnitudes, as bits: NaN is larger than everything
    for (int d = 0; d < count; ++d)
      largest = std::max(largest, std::bit_cast<uint32_t>(x[d]) & 0x7fffffff);
    const float magnitude = std::bit_cast<float>(largest);
    const bool usable = magnitude >= 1e-30f && largest < 0x7f800000;
    const float inverse = usable ? 127.0f / magnitude : 0.0f;
    for (int d = 0; d < count; ++d)
      quants[d] = usable ? static_cast<int8_t>(std::nearbyintf(x[d] * inverse)) : int8_t{0};
    scale = magnitude < 1e-30f ? 0.0f : magnitude / 127.0f;
  }
};

struct Query {
  int head_dim;
  float x[kMaxHeadDim];  // scaled; for bf16 rounded
  float int8_scale = 0;
  int8_t quants[kMaxHeadDim];
};

Query make_query(const AttentionTile& tile, const float* q) {
  Query query;
  query.head_dim = tile.head_dim;
  const float factor = tile.scale * kLog2E;
  for (int d = 0; d < tile.head_dim; ++d) {
    query.x[d] = q[d] * factor;
    if (tile.type == DType::bf16) query.x[d] = bf16_to_float(float_to_bf16(query.x[d]));
  }
  if (tile.type == DType::int8) {
    const Int8Row row(query.x, tile.head_dim);
    query.int8_scale = row.scale;
    std::copy_n(row.quants, tile.head_dim, query.quants);
  }
  return query;
}

float score(const Query& query, const Block& block, int token) {
  if (block.type == DType::int8) {
    int32_t sum = 0;
    for (int d = 0; d < query.head_dim; ++d) sum += query.quants[d] * block.key_int8(token, d);
    return static_cast<float>(sum) * block.key_scale(token) * query.int8_scale;
  }
  float sum = 0;
  const auto add = [&](int d) {
    if (d < query.head_dim)
      sum = std::fma(query.x[d], block.value_f32(block.k, block.key_at(token, d)), sum);
  };
  const int run = run_of(block.type);
  for (int d = 0; d < query.head_dim; d += run)
    for (int i = run; i-- > 0;) add(d + i);
  return sum;
}

// What one step, or all steps so far, came to.
struct Softmax {
  float largest = -std::numeric_limits<float>::infinity();
  float sum = 0;
  float out[kMaxHeadDim] = {};
};

// Adds the keys [begin, begin + count) of a block, whose weights are p[0 .. count).
void add_values(const Block& block, const float* p, int count, int head_dim, float* out) {
  const int run = run_of(block.type);
  for (int d = 0; d < head_dim; ++d)
    for (int j = 0; j < count; j += run)
      for (int i = std::min(run, count - j); i-- > 0;)
        out[d] = std::fma(p[j + i], block.value_f32(block.v, block.value_at(j + i, d)), out[d]);
}

Block block_at(const AttentionTile& tile, int key) {
  const int32_t id = tile.block_table[key / kKvBlockTokens];
  return {tile.type, tile.head_dim, tile.head_data + id * tile.block_stride};
}

void int8_values(const AttentionTile& tile, int begin, int num_keys, const float* p, float* out) {
  float weights[kKeyStep];
  uint32_t largest = 0;  // as bits: NaN is larger than everything
  for (int j = 0; j < num_keys; ++j) {
    weights[j] = p[j] * block_at(tile, begin + j).value_scale(j % kKvBlockTokens);
    largest = std::max(largest, std::bit_cast<uint32_t>(weights[j]) & 0x7fffffff);
  }
  const float magnitude = std::bit_cast<float>(largest);
  const bool usable = magnitude >= 1e-30f && largest < 0x7f800000;
  const float inverse = usable ? kWeightLevels / magnitude : 0.0f;
  int32_t rounded[kKeyStep];
  for (int j = 0; j < num_keys; ++j)
    rounded[j] = usable ? static_cast<int32_t>(std::nearbyintf(weights[j] * inverse)) : 0;
  const float scale = magnitude / kWeightLevels;  // NaN stays one
  for (int d = 0; d < tile.head_dim; ++d) {
    int32_t sum = 0;
    for (int j = 0; j < num_keys; ++j)
      sum += rounded[j] * block_at(tile, begin + j).value_int8(j % kKvBlockTokens, d);
    out[d] = static_cast<float>(sum) * scale;
  }
}

// The keys [begin, begin + num_keys) of a step on their own.
void run_step(const AttentionTile& tile, const Query& query, int begin, int num_keys,
              Softmax* step) {
  float p[kKeyStep] = {};
  for (int j = 0; j < num_keys; ++j)
    p[j] = score(query, block_at(tile, begin + j), j % kKvBlockTokens);
  for (int j = 0; j < num_keys; ++j) step->largest = std::max(step->largest, p[j]);
  float lanes[16] = {};
  for (int j = 0; j < num_keys; ++j) {
    p[j] = exp2_weight_scalar(p[j] - step->largest);
    if (tile.type == DType::bf16) p[j] = bf16_to_float(float_to_bf16(p[j]));
    lanes[j % 16] += p[j];
  }
  step->sum = tree_sum_16(lanes);
  if (tile.type == DType::int8) return int8_values(tile, begin, num_keys, p, step->out);
  for (int b = 0; b < num_keys; b += kKvBlockTokens)
    add_values(block_at(tile, begin + b), p + b, std::min(kKvBlockTokens, num_keys - b),
               tile.head_dim, step->out);
}

void merge(const Softmax& step, int head_dim, Softmax* total) {
  const float largest = total->largest > step.largest ? total->largest : step.largest;
  const float before = exp2_weight_scalar(total->largest - largest);
  const float added = exp2_weight_scalar(step.largest - largest);
  total->largest = largest;
  total->sum = std::fma(step.sum, added, total->sum * before);
  for (int d = 0; d < head_dim; ++d)
    total->out[d] = std::fma(step.out[d], added, total->out[d] * before);
}

void write_out(const AttentionTile& tile, int query, const Softmax& total) {
  const float inverse = 1.0f / total.sum;
  for (int d = 0; d < tile.head_dim; ++d) tile.out[query][d] = total.out[d] * inverse;
}

float* partial_at(const AttentionTile& tile, int step, int query) {
  return tile.partials + (int64_t{step} * tile.num_queries + query) * tile.partial_stride;
}

}  // namespace

void attention_tile(const AttentionTile& tile) {
  for (int i = 0; i < tile.num_queries; ++i) {
    const Query query = make_query(tile, tile.q[i]);
    Softmax total;
    for (int s = tile.step_begin; s < tile.step_end && s * kKeyStep <= tile.position[i]; ++s) {
      Softmax step;
      run_step(tile, query, s * kKeyStep, std::min(kKeyStep, tile.position[i] + 1 - s * kKeyStep),
               &step);
      if (tile.partials == nullptr) {
        merge(step, tile.head_dim, &total);
        continue;
      }
      float* to = partial_at(tile, s, i);
      std::copy_n(step.out, tile.head_dim, to);
      to[tile.partial_stride - 2] = step.largest;
      to[tile.partial_stride - 1] = step.sum;
    }
    if (tile.partials == nullptr) write_out(tile, i, total);
  }
}

void attention_merge(const AttentionTile& tile, int first_query, int last_query) {
  for (int i = first_query; i < last_query; ++i) {
    Softmax total;
    for (int s = 0; s * kKeyStep <= tile.position[i]; ++s) {
      const float* from = partial_at(tile, s, i);
      Softmax step;
      std::copy_n(from, tile.head_dim, step.out);
      step.largest = from[tile.partial_stride - 2];
      step.sum = from[tile.partial_stride - 1];
      merge(step, tile.head_dim, &total);
    }
    write_out(tile, i, total);
  }
}

void append_kv(const KvAppend& append) {
  const Block block(append.type, append.head_dim, append.head);
  const int64_t v_bytes = block.v - block.k;
  std::byte* const k = append.head;
  std::byte* const v = k + v_bytes;
  std::byte* const scales = v + v_bytes;
  for (int t = 0; t < append.count; ++t) {
    const float* key = append.k + t * append.stride;
    const float* value = append.v + t * append.stride;
    const int token = append.offset + t;
    if (append.type == DType::int8) {
      const Int8Row key_row(key, append.head_dim);
      const Int8Row value_row(value, append.head_dim);
      store(scales, token, key_row.scale);
      store(scales, kKvBlockTokens + token, value_row.scale);
      for (int d = 0; d < block.width; ++d) {
        store(k, block.key_at(token, d), static_cast<uint8_t>(key_row.quants[d] + 128));
        store(v, block.value_at(token, d), value_row.quants[d]);
      }
      continue;
    }
    const auto put = [&](std::byte* base, int64_t at, float x) {
      if (append.type == DType::f32) return store(base, at, x);
      store(base, at, append.type == DType::f16 ? float_to_f16(x) : float_to_bf16(x));
    };
    for (int d = 0; d < block.width; ++d) {
      put(k, block.key_at(token, d), d < append.head_dim ? key[d] : 0.0f);
      put(v, block.value_at(token, d), d < append.head_dim ? value[d] : 0.0f);
    }
  }
}

}  // namespace chainpump::kernels::cpu::reference
