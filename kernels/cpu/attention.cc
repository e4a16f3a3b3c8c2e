// Cuts attention into tiles of queries that share a KV head and each tile's keys into steps, and
// gives each member an equal share of the cost, counted in blocks of keys times queries. A tile
// that a border between two members falls into is computed by both, each its steps, and merged
// after a barrier; which steps those are never changes a result.
#include "kernels/cpu/attention.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/cpu/dispatch.h"

namespace chainpump::kernels::cpu {

static_assert(sizeof(KvBlockId) == sizeof(int32_t));
static_assert(kKeyStep % kKvBlockTokens == 0);

namespace {

constexpr int64_t kPartialExtra = 16;  // floats beside the values, of which two are used

int64_t head_bytes(const KvLayer& kv) { return kv_block_bytes(kv.type, 1, kv.head_dim); }

int32_t steps_of(int64_t last_position) {
  return static_cast<int32_t>(last_position / kKeyStep + 1);
}

/// One call of attention() as each member sees it: the tiles in a fixed order, with their costs.
class AttentionWork {
 public:
  AttentionWork(const KvLayer& kv, std::span<const AttentionSlice> slices, int32_t num_heads,
                float scale, std::span<float> scratch)
      : kv_(kv),
        slices_(slices),
        group_(num_heads / kv.num_kv_heads),
        scale_(scale),
        scratch_(scratch) {}

  void set_rows(const float* q, int64_t q_stride, float* out, int64_t out_stride) {
    q_ = q;
    q_stride_ = q_stride;
    out_ = out;
    out_stride_ = out_stride;
  }

  /// Smaller tiles where whole ones have too few steps to be shared evenly.
  void choose_tile(int num_members) {
    int64_t num_steps = 0;
    for_each_tile([&](const Place& place) { num_steps += place.num_steps; });
    if (num_members > 1 && num_steps < 4 * num_members) tile_queries_ = 1;
    for_each_tile([&](const Place& place) { total_cost_ += place.cost(); });
  }

  void run(const KernelTable& table, TeamMember& member) {
    bool any_split = false;
    for_each_tile([&, cost_before = int64_t{0}, floats = int64_t{0}](const Place& place) mutable {
      const int32_t begin = first_step(place, cost_before, member.index(), member.size());
      const int32_t end = first_step(place, cost_before, member.index() + 1, member.size());
      const bool split = is_split(place, cost_before, member.size());
      cost_before += place.cost();
      if (begin < end) {
        AttentionTile tile = make_tile(place);
        tile.step_begin = begin;
        tile.step_end = end;
        if (split) tile.partials = partials(place, floats);
        table.attention_tile(tile);
      }
      if (split) floats += partial_floats(place);
      any_split |= split;
    });
    if (!any_split) return;
    member.barrier();
    merge(table, member);
  }

 private:
  struct Place {
    const AttentionSlice* slice;
    int32_t kv_head;
    int64_t first;  // queries [first, last) of the slice: row * group + (head within the group)
    int64_t last;
    int32_t num_steps;
    // A key block costs as much to fetch as to meet 4 queries.
    int64_t step_cost() const { return last - first + 4; }
    int64_t cost() const { return num_steps * step_cost(); }
  };

  template <typename Visit>
  void for_each_tile(Visit visit) const {
    for (const AttentionSlice& slice : slices_) {
      const int64_t num_queries = int64_t{slice.num_tokens} * group_;
      for (int32_t head = 0; head < kv_.num_kv_heads; ++head) {
        for (int64_t first = 0; first < num_queries; first += tile_queries_) {
          const int64_t last = std::min(first + tile_queries_, num_queries);
          visit(Place{&slice, head, first, last,
                      steps_of(slice.first_position + (last - 1) / group_)});
        }
      }
    }
  }

  /// The first step of the tile that does not belong to the members before `member`: a step is its
  /// that begins in its part of the total cost.
  int32_t first_step(const Place& place, int64_t cost_before, int member, int num_members) const {
    const int64_t border = (total_cost_ * member + num_members - 1) / num_members;
    const int64_t steps = (border - cost_before + place.step_cost() - 1) / place.step_cost();
    return static_cast<int32_t>(
        std::clamp<int64_t>(border <= cost_before ? 0 : steps, 0, place.num_steps));
  }

  bool is_split(const Place& place, int64_t cost_before, int num_members) const {
    const int64_t last = cost_before + place.cost() - place.step_cost();
    return cost_before * num_members / total_cost_ != last * num_members / total_cost_;
  }

  int64_t partial_stride() const { return kv_stored_dim(kv_.head_dim) + kPartialExtra; }
  int64_t partial_floats(const Place& place) const {
    return place.num_steps * (place.last - place.first) * partial_stride();
  }
  float* partials(const Place& place, int64_t offset) const {
    CHECK_LE(offset + partial_floats(place), static_cast<int64_t>(scratch_.size()));
    return scratch_.data() + offset;
  }

  AttentionTile make_tile(const Place& place) const {
    AttentionTile tile{};
    tile.type = kv_.type;
    tile.head_dim = kv_.head_dim;
    tile.scale = scale_;
    tile.num_queries = static_cast<int32_t>(place.last - place.first);
    tile.block_table = &place.slice->block_table.data()->value;
    tile.head_data = kv_.data + place.kv_head * head_bytes(kv_);
    tile.block_stride = kv_.num_kv_heads * head_bytes(kv_);
    tile.partial_stride = partial_stride();
    for (int64_t i = place.first; i < place.last; ++i) {
      const int64_t row = place.slice->first_row + i / group_;
      const int64_t column = (place.kv_head * group_ + i % group_) * kv_.head_dim;
      const int64_t at = i - place.first;
      tile.q[at] = q_ + row * q_stride_ + column;
      tile.out[at] = out_ + row * out_stride_ + column;
      tile.position[at] = place.slice->first_position + static_cast<int32_t>(i / group_);
    }
    return tile;
  }

  /// The split tiles, each member its queries.
  void merge(const KernelTable& table, TeamMember& member) const {
    for_each_tile([&, cost_before = int64_t{0}, floats = int64_t{0}](const Place& place) mutable {
      const bool split = is_split(place, cost_before, member.size());
      cost_before += place.cost();
      if (!split) return;
      AttentionTile tile = make_tile(place);
      tile.partials = partials(place, floats);
      floats += partial_floats(place);
      const Range mine = share_of(member, tile.num_queries, 1);
      if (mine.begin < mine.end)
        table.attention_merge(tile, static_cast<int>(mine.begin), static_cast<int>(mine.end));
    });
  }

  const KvLayer& kv_;
  std::span<const AttentionSlice> slices_;
  int32_t group_;  // query heads per KV head
  float scale_;
  std::span<float> scratch_;
  int64_t tile_queries_ = kMaxTileQueries;
  int64_t total_cost_ = 0;
  const float* q_ = nullptr;
  int64_t q_stride_ = 0;
  float* out_ = nullptr;
  int64_t out_stride_ = 0;
};

}  // namespace

int64_t attention_scratch_floats(int num_threads, int32_t context_tokens, int32_t head_dim) {
  const int64_t per_tile = int64_t{steps_of(std::max(context_tokens, 1) - 1)} * kMaxTileQueries *
                           (kv_stored_dim(head_dim) + kPartialExtra);
  return (num_threads - 1) * per_tile;
}

void append_kv(Isa isa, TeamMember& member, const KvLayer& kv,
               std::span<const AttentionSlice> slices, const float* k, const float* v,
               int64_t kv_stride) {
  for (const AttentionSlice& slice : slices) {
    if (slice.num_tokens == 0) continue;
    const int64_t end = int64_t{slice.first_position} + slice.num_tokens;
    CHECK_GE(static_cast<int64_t>(slice.block_table.size()) * kKvBlockTokens, end);
    const int64_t first_block = slice.first_position / kKvBlockTokens;
    const int64_t num_blocks = (end + kKvBlockTokens - 1) / kKvBlockTokens - first_block;
    const Range mine = share_of(member, num_blocks * kv.num_kv_heads, 1);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t index = first_block + i / kv.num_kv_heads;
      const int64_t head = i % kv.num_kv_heads;
      const KvBlockId block = slice.block_table[static_cast<size_t>(index)];
      CHECK(block.value >= 0 && block.value < kv.num_blocks);
      const int64_t begin = std::max<int64_t>(slice.first_position, index * kKvBlockTokens);
      const int64_t stop = std::min(end, (index + 1) * kKvBlockTokens);
      const int64_t at =
          (slice.first_row + begin - slice.first_position) * kv_stride + head * kv.head_dim;
      kernel_table(isa).append_kv(
          {kv.type, kv.head_dim, static_cast<int32_t>(begin % kKvBlockTokens),
           static_cast<int32_t>(stop - begin), k + at, v + at, kv_stride,
           kv.data + (block.value * kv.num_kv_heads + head) * head_bytes(kv)});
    }
  }
}

void attention(Isa isa, TeamMember& member, const KvLayer& kv,
               std::span<const AttentionSlice> slices, int32_t num_heads, float scale,
               const float* q, int64_t q_stride, float* out, int64_t out_stride,
               std::span<float> scratch) {
  CHECK_LE(kv.head_dim, kMaxHeadDim);
  CHECK_EQ(num_heads % kv.num_kv_heads, 0);
  AttentionWork work(kv, slices, num_heads, scale, scratch);
  work.set_rows(q, q_stride, out, out_stride);
  work.choose_tile(member.size());
  work.run(kernel_table(isa), member);
}

}  // namespace chainpump::kernels::cpu
