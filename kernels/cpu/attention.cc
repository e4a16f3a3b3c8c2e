// Cuts attention into tiles of queries that share a KV head and gives each member an equal share of
// the cost (key blocks visited); appends K and V in the layout of attention_tile.h.
#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/half.h"
#include "kernels/cpu/dispatch.h"

namespace chainpump::kernels::cpu {
namespace {

static_assert(sizeof(KvBlockId) == sizeof(int32_t));

int64_t element_bytes(DType type) { return type == DType::f32 ? 4 : 2; }

int64_t head_bytes(const KvLayer& kv) {
  return 2 * int64_t{kv.head_dim} * kKvBlockTokens * element_bytes(kv.type);
}

void put(DType type, std::byte* base, int64_t at, float value) {
  if (type == DType::f32) {
    std::memcpy(base + at * 4, &value, 4);
    return;
  }
  const uint16_t bits = type == DType::f16 ? float_to_f16(value) : float_to_bf16(value);
  std::memcpy(base + at * 2, &bits, 2);
}

void append_token(const KvLayer& kv, int64_t block, int32_t offset, int32_t head, const float* k,
                  const float* v) {
  std::byte* base = kv.data + (block * kv.num_kv_heads + head) * head_bytes(kv);
  const int64_t v_at = int64_t{kv.head_dim} * kKvBlockTokens + int64_t{offset} * kv.head_dim;
  for (int32_t d = 0; d < kv.head_dim; ++d) {
    put(kv.type, base, int64_t{d} * kKvBlockTokens + offset, k[d]);
    put(kv.type, base, v_at + d, v[d]);
  }
}

// Queries of one slice that share a KV head are numbered row * group + (head within the group);
// a tile is `tile` consecutive ones. What they cost: the key blocks up to the last one's position.
int64_t tile_cost(const AttentionSlice& slice, int64_t last_query, int32_t group) {
  const int64_t position = slice.first_position + last_query / group;
  return position / kKvBlockTokens + 1;
}

struct Cut {
  int32_t group;  // query heads per KV head
  int64_t tile;   // queries
};

// Calls visit(slice, kv_head, first, last, cost) for each tile in a fixed order.
template <typename Visit>
void for_each_tile(std::span<const AttentionSlice> slices, int32_t num_kv_heads, const Cut& cut,
                   Visit visit) {
  for (const AttentionSlice& slice : slices) {
    const int64_t num_queries = int64_t{slice.num_tokens} * cut.group;
    for (int32_t head = 0; head < num_kv_heads; ++head) {
      for (int64_t first = 0; first < num_queries; first += cut.tile) {
        const int64_t last = std::min(first + cut.tile, num_queries);
        visit(slice, head, first, last, tile_cost(slice, last - 1, cut.group));
      }
    }
  }
}

}  // namespace

int64_t kv_block_bytes(DType type, int32_t num_kv_heads, int32_t head_dim) {
  return 2 * int64_t{num_kv_heads} * head_dim * kKvBlockTokens * element_bytes(type);
}

void append_kv(Isa isa, TeamMember& member, const KvLayer& kv,
               std::span<const AttentionSlice> slices, const float* k, const float* v,
               int64_t kv_stride) {
  static_cast<void>(isa);  // stores only; every variant has the same layout
  for (const AttentionSlice& slice : slices) {
    CHECK_GE(static_cast<int64_t>(slice.block_table.size()) * kKvBlockTokens,
             int64_t{slice.first_position} + slice.num_tokens);
    const Range mine = share_of(member, int64_t{slice.num_tokens} * kv.num_kv_heads, 1);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t token = i / kv.num_kv_heads;
      const auto head = static_cast<int32_t>(i % kv.num_kv_heads);
      const int64_t position = slice.first_position + token;
      const KvBlockId block = slice.block_table[static_cast<size_t>(position / kKvBlockTokens)];
      CHECK(block.value >= 0 && block.value < kv.num_blocks);
      const int64_t at = (slice.first_row + token) * kv_stride + int64_t{head} * kv.head_dim;
      append_token(kv, block.value, static_cast<int32_t>(position % kKvBlockTokens), head, k + at,
                   v + at);
    }
  }
}

void attention(Isa isa, TeamMember& member, const KvLayer& kv,
               std::span<const AttentionSlice> slices, int32_t num_heads, float scale,
               const float* q, int64_t q_stride, float* out, int64_t out_stride) {
  CHECK_LE(kv.head_dim, kMaxHeadDim);
  CHECK_EQ(num_heads % kv.num_kv_heads, 0);
  Cut cut{num_heads / kv.num_kv_heads, kMaxTileQueries};
  int64_t num_tiles = 0;
  int64_t total_cost = 0;
  for_each_tile(slices, kv.num_kv_heads, cut,
                [&](const AttentionSlice&, int32_t, int64_t, int64_t, int64_t) { ++num_tiles; });
  // With few tiles a team could not share them evenly; the cut never changes a result.
  if (member.size() > 1 && num_tiles < 4 * member.size()) cut.tile = 1;
  for_each_tile(
      slices, kv.num_kv_heads, cut,
      [&](const AttentionSlice&, int32_t, int64_t, int64_t, int64_t cost) { total_cost += cost; });
  int64_t cost_before = 0;
  for_each_tile(
      slices, kv.num_kv_heads, cut,
      [&](const AttentionSlice& slice, int32_t head, int64_t first, int64_t last, int64_t cost) {
        const int64_t owner = cost_before * member.size() / total_cost;
        cost_before += cost;
        if (owner != member.index()) return;
        AttentionTile tile{};
        tile.type = kv.type;
        tile.head_dim = kv.head_dim;
        tile.scale = scale;
        tile.num_queries = static_cast<int32_t>(last - first);
        tile.block_table = &slice.block_table.data()->value;
        tile.head_data = kv.data + head * head_bytes(kv);
        tile.block_stride = kv.num_kv_heads * head_bytes(kv);
        for (int64_t i = first; i < last; ++i) {
          const int64_t row = slice.first_row + i / cut.group;
          const int64_t column = (head * cut.group + i % cut.group) * kv.head_dim;
          tile.q[i - first] = q + row * q_stride + column;
          tile.out[i - first] = out + row * out_stride + column;
          tile.position[i - first] = slice.first_position + static_cast<int32_t>(i / cut.group);
        }
        kernel_table(isa).attention_tile(tile);
      });
}

}  // namespace chainpump::kernels::cpu
