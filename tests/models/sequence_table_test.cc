// The account of block tables: what a microbatch may read, write, share, copy and cut off, and that
// whatever comes, nobody changes what another sequence holds.
#include "models/sequence_table.h"

#include <boost/test/unit_test.hpp>
#include <map>
#include <random>

#include "base/kv_layout.h"

namespace chainpump::models {
namespace {

using graph::Microbatch;

constexpr graph::MicrobatchLimits kLimits{.max_tokens = 200,
                                          .max_sequences = 4,
                                          .context_tokens = 160,
                                          .num_kv_blocks = 12,
                                          .vocabulary_size = 100};

graph::SequenceDescriptor described(uint64_t id) {
  graph::SequenceDescriptor descriptor;
  descriptor.id = SequenceId(id);
  return descriptor;
}

graph::SequenceSlice slice(uint64_t id, int32_t first, int32_t count, int32_t offset,
                           const std::vector<int32_t>& blocks) {
  graph::SequenceSlice out;
  out.id = SequenceId(id);
  out.first_position = first;
  out.tokens.assign(static_cast<size_t>(count), 1);
  out.table_offset = offset;
  for (const int32_t block : blocks) out.new_blocks.emplace_back(block);
  return out;
}

std::vector<int32_t> blocks_of(const SequenceTable& table, uint64_t id) {
  std::vector<int32_t> out;
  for (const KvBlockId block : table.block_table(SequenceId(id))) out.push_back(block.value);
  return out;
}

struct Table {
  SequenceTable table{kLimits};

  /// Empty if it was taken in, else why not.
  std::string take(const Microbatch& microbatch) {
    const Status checked = table.check(microbatch);
    if (!checked.ok()) {
      BOOST_TEST((checked.error().code == ErrorCode::invalid_argument));
      return checked.error().message;
    }
    table.apply(microbatch);
    return "";
  }
  void taken(const Microbatch& microbatch) { BOOST_REQUIRE_EQUAL(take(microbatch), ""); }
  void refused(const Microbatch& microbatch, std::string_view what) {
    const std::string error = take(microbatch);
    BOOST_TEST(error.find(what) != std::string::npos, "'" << error << "' lacks '" << what << "'");
  }
};

/// Sequence 1 holds 40 positions in blocks 3 and 5.
struct Held : Table {
  Held() {
    Microbatch m;
    m.descriptors = {described(1)};
    m.slices = {slice(1, 0, 40, 0, {3, 5})};
    taken(m);
  }
};

Microbatch joining(uint64_t id, const graph::SequenceSlice& first) {
  Microbatch m;
  m.descriptors = {described(id)};
  m.slices = {first};
  return m;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(sequence_table)

BOOST_AUTO_TEST_CASE(a_prefix_may_lie_in_another_s_blocks) {
  Held held;
  held.taken(joining(2, slice(2, 32, 10, 0, {3, 7})));
  BOOST_TEST(blocks_of(held.table, 2) == (std::vector{3, 7}));
  BOOST_TEST(held.table.num_tokens(SequenceId(2)) == 42);
  BOOST_TEST(held.table.num_blocks_held() == 3);
}

BOOST_AUTO_TEST_CASE(what_was_written_outlives_its_table) {
  Held held;
  Microbatch m = joining(2, slice(2, 32, 10, 0, {3, 5}));
  m.released = {SequenceId(1), SequenceId(1)};  // twice is once
  held.taken(m);
  BOOST_TEST(held.table.num_blocks_held() == 2);
  BOOST_TEST(!held.table.contains(SequenceId(1)));
  // Block 5 held 8 positions of the one before; now 10 of this one.
  held.taken({.id = {}, .slices = {slice(2, 42, 1, 2, {})}});
}

BOOST_AUTO_TEST_CASE(what_is_not_written_cannot_be_read) {
  Held held;
  held.refused(joining(2, slice(2, 32, 1, 0, {4, 7})),
               "reads 32 positions of block 4, which holds 0");
  held.refused(joining(2, slice(2, 33, 1, 0, {3, 4})),
               "reads 1 positions of block 4, which holds 0");
  // Block 5 holds 8.
  Microbatch released = joining(2, slice(2, 41, 1, 0, {3, 5}));
  released.released = {SequenceId(1)};
  held.refused(released, "reads 9 positions of block 5, which holds 8");
  released.slices = {slice(2, 40, 1, 0, {3, 5})};
  held.taken(released);
  // Neither what the same microbatch writes elsewhere.
  Held other;
  Microbatch both = joining(2, slice(2, 0, 32, 0, {8}));
  both.descriptors.push_back(described(3));
  both.slices.push_back(slice(3, 32, 1, 0, {8, 9}));
  other.refused(both, "writes into block 8, which stands in 2 tables");
}

BOOST_AUTO_TEST_CASE(a_block_written_anew_has_lost_its_tail) {
  Held held;
  Microbatch m = joining(2, slice(2, 0, 5, 0, {3}));
  m.released = {SequenceId(1)};
  held.taken(m);
  m = joining(3, slice(3, 6, 1, 0, {3}));
  m.released = {SequenceId(2)};
  held.refused(m, "reads 6 positions of block 3, which holds 5");
}

BOOST_AUTO_TEST_CASE(a_shared_block_cannot_be_written) {
  Held held;
  held.refused(joining(2, slice(2, 0, 4, 0, {3})), "writes into block 3, which stands in 2 tables");
  held.refused(joining(2, slice(2, 36, 1, 0, {3, 5})),
               "writes into block 5, which stands in 2 tables");
  // Nor by the one that was there first: 2 shares block 5 when it is full and reads on from there,
  // then 1 is made anew over the same blocks and would go back into it.
  held.taken({.id = {}, .slices = {slice(1, 40, 24, 2, {})}});
  held.taken(joining(2, slice(2, 64, 1, 0, {3, 5, 7})));
  Microbatch again = joining(1, slice(1, 40, 1, 0, {3, 5}));
  again.released = {SequenceId(1)};
  held.refused(again, "writes into block 5, which stands in 2 tables");
  BOOST_TEST(held.table.num_tokens(SequenceId(1)) == 64);
  BOOST_TEST(held.table.num_blocks_held() == 3);
}

BOOST_AUTO_TEST_CASE(a_block_stands_once_in_a_table_that_writes_it) {
  Held held;
  held.refused(joining(2, slice(2, 32, 40, 0, {3, 8, 8})), "block 8 is given twice");
  held.refused({.id = {}, .slices = {slice(1, 40, 30, 2, {5})}}, "stands in 2 tables");
}

BOOST_AUTO_TEST_CASE(copy_on_write_takes_the_place_of_the_shared_block) {
  Held held;
  // Two choices of one prompt of 41 tokens: the leader has sent 40.
  Microbatch fork = joining(2, slice(2, 40, 1, 0, {3, 9}));
  fork.copies = {{KvBlockId(5), KvBlockId(9)}};
  held.taken(fork);
  held.taken({.id = {}, .slices = {slice(1, 40, 1, 2, {})}});
  // A third shares both blocks of the first; then the first moves away, in the same microbatch.
  Microbatch third = joining(3, slice(3, 41, 1, 0, {3, 5}));
  held.refused(third, "writes into block 5, which stands in 2 tables");
  third.copies = {{KvBlockId(5), KvBlockId(10)}};
  third.slices.push_back(slice(1, 41, 1, 1, {10}));
  held.taken(third);
  BOOST_TEST(blocks_of(held.table, 1) == (std::vector{3, 10}));
  BOOST_TEST(blocks_of(held.table, 2) == (std::vector{3, 9}));
  BOOST_TEST(blocks_of(held.table, 3) == (std::vector{3, 5}));
  BOOST_TEST(held.table.num_blocks_held() == 4);
}

BOOST_AUTO_TEST_CASE(copies_are_done_in_order_and_checked) {
  Held held;
  Microbatch m = joining(2, slice(2, 40, 1, 0, {3, 7}));
  m.copies = {{KvBlockId(6), KvBlockId(7)}};
  held.refused(m, "copy of block 6, which holds nothing");
  m.copies = {{KvBlockId(5), KvBlockId(3)}};
  held.refused(m, "copy to block 3, which stands in 1 tables");
  m.copies = {{KvBlockId(12), KvBlockId(7)}};
  held.refused(m, "block 12 is not in [0, 12)");
  m.copies = {{KvBlockId(5), KvBlockId(-1)}};
  held.refused(m, "block -1 is not in [0, 12)");
  m.copies = {{KvBlockId(6), KvBlockId(7)}, {KvBlockId(5), KvBlockId(6)}};  // too late
  held.refused(m, "copy of block 6, which holds nothing");
  m.copies = {{KvBlockId(5), KvBlockId(6)}, {KvBlockId(6), KvBlockId(7)}};
  held.taken(m);
  // A block that is given back in the same microbatch may be copied to and from.
  Held other;
  m.released = {SequenceId(1)};
  m.copies = {{KvBlockId(5), KvBlockId(5)}};
  other.refused(m, "copy of block 5 to itself");
  m.copies = {{KvBlockId(5), KvBlockId(7)}, {KvBlockId(3), KvBlockId(5)}};
  other.taken(m);
}

BOOST_AUTO_TEST_CASE(tables_are_cut_and_never_stretched) {
  Held held;
  held.refused({.id = {}, .slices = {slice(1, 40, 1, 3, {})}}, "table offset 3, but 2 held");
  held.refused({.id = {}, .slices = {slice(1, 40, 1, 1, {})}}, "1 blocks for 41 positions");
  held.refused({.id = {}, .slices = {slice(1, 40, 1, 1, {6})}},
               "reads 8 positions of block 6, which holds 0");
  held.refused({.id = {}, .slices = {slice(1, 40, 1, 0, {5, 3})}},
               "reads 32 positions of block 5, which holds 8");
  held.refused({.id = {}, .slices = {slice(1, 41, 1, 2, {})}}, "positions from 41 on, but 40");
  held.refused({.id = {}, .slices = {slice(1, 39, 1, 2, {})}}, "positions from 39 on, but 40");
  held.refused(joining(2, slice(2, -1, 3, 0, {6})), "positions from -1 on");
  held.refused(joining(2, slice(2, 0, 3, 0, {6, 7, 8, 9, 10, 11})), "6 blocks for 3 positions");
  held.taken({.id = {}, .slices = {slice(1, 40, 1, 0, {3, 5})}});  // the same ones again
  BOOST_TEST(held.table.num_blocks_held() == 2);
}

namespace {

/// Plays microbatches, most of them nonsense, and keeps what every position of every block would
/// hold: what a sequence has once read or written must stay.
class Play {
 public:
  explicit Play(uint32_t seed)
      : engine_(seed), content_(12, std::vector<int64_t>(kKvBlockTokens)) {}

  void step() {
    const Microbatch m = random();
    const auto before = snapshot();
    const Status checked = table_.check(m);
    BOOST_REQUIRE((snapshot() == before));
    if (!checked.ok()) return;
    ++num_taken_;
    table_.apply(m);
    for (const SequenceId id : m.released) seen_.erase(id);
    for (const graph::BlockCopy& copy : m.copies) at(copy.to) = at(copy.from);
    num_copies_ += m.copies.size();
    for (const graph::SequenceSlice& s : m.slices) {
      std::vector<int64_t>& seen = seen_[s.id];
      num_joined_ += seen.empty() && s.first_position > 0 ? 1 : 0;
      for (int32_t p = 0; p < s.first_position; ++p) {
        const int64_t found = place(s.id, p);
        BOOST_REQUIRE_NE(found, 0);  // never read before written
        if (seen.size() <= static_cast<size_t>(p)) seen.push_back(found);
        // A block that takes another's place is the sequencer's word for the same content.
        if (p >= s.table_offset * kKvBlockTokens) seen[static_cast<size_t>(p)] = found;
      }
    }
    for (const graph::SequenceSlice& s : m.slices) {
      for (size_t i = 0; i < s.tokens.size(); ++i) {
        place(s.id, s.first_position + static_cast<int32_t>(i)) = ++stamp_;
        seen_[s.id].push_back(stamp_);
      }
    }
    for (const auto& [id, seen] : seen_) {
      for (size_t p = 0; p < seen.size(); ++p)
        BOOST_REQUIRE_EQUAL(place(id, static_cast<int32_t>(p)), seen[p]);
    }
  }
  size_t num_taken_ = 0;
  size_t num_joined_ = 0;
  size_t num_copies_ = 0;

 private:
  int32_t upto(int32_t most) { return std::uniform_int_distribution<int32_t>(0, most)(engine_); }
  KvBlockId block() { return KvBlockId(upto(11)); }
  std::vector<int64_t>& at(KvBlockId b) { return content_[static_cast<size_t>(b.value)]; }
  int64_t& place(SequenceId id, int32_t position) {
    const auto blocks = table_.block_table(id);
    return at(blocks[static_cast<size_t>(position / kKvBlockTokens)])[static_cast<size_t>(
        position % kKvBlockTokens)];
  }
  std::vector<std::vector<KvBlockId>> snapshot() const {
    std::vector<std::vector<KvBlockId>> out;
    for (uint64_t id = 1; id <= 5; ++id) {
      out.emplace_back();
      if (!table_.contains(SequenceId(id))) continue;
      const auto blocks = table_.block_table(SequenceId(id));
      out.back().assign(blocks.begin(), blocks.end());
      out.back().emplace_back(table_.num_tokens(SequenceId(id)));
    }
    out.push_back({KvBlockId(table_.num_blocks_held())});
    return out;
  }
  Microbatch random() {
    Microbatch m;
    if (upto(3) == 0) m.released.emplace_back(1 + upto(4));
    if (upto(2) == 0) m.copies.push_back({block(), block()});
    for (int32_t i = 0; i < 1 + upto(1); ++i) {
      const SequenceId id(static_cast<uint64_t>(1 + upto(4)));
      const int32_t held = table_.num_tokens(id);
      if (held == 0 || upto(5) == 0) m.descriptors.push_back(described(id.value));
      graph::SequenceSlice s;
      s.id = id;
      s.first_position = held == 0 && upto(1) == 0 ? upto(70) : held;
      s.tokens.assign(static_cast<size_t>(1 + upto(upto(3) == 0 ? 40 : 3)), 1);
      const auto num_held = held == 0 ? 0 : static_cast<int32_t>(table_.block_table(id).size());
      s.table_offset = upto(2) == 0 ? upto(num_held) : num_held;
      const int32_t end = s.first_position + static_cast<int32_t>(s.tokens.size());
      for (int32_t b = s.table_offset; b * kKvBlockTokens < end; ++b)
        s.new_blocks.push_back(any_block(m, b));
      m.slices.push_back(s);
    }
    return m;
  }
  /// Often one that another table has at that index, or that was just copied to.
  KvBlockId any_block(const Microbatch& m, int32_t index) {
    const SequenceId other(static_cast<uint64_t>(1 + upto(4)));
    if (upto(2) > 0 && table_.contains(other)) {
      const auto blocks = table_.block_table(other);
      if (static_cast<size_t>(index) < blocks.size()) return blocks[static_cast<size_t>(index)];
    }
    return !m.copies.empty() && upto(1) == 0 ? m.copies.back().to : block();
  }

  std::mt19937 engine_;
  SequenceTable table_{kLimits};
  std::vector<std::vector<int64_t>> content_;  // stamps of what was written; 0: nothing yet
  std::map<SequenceId, std::vector<int64_t>> seen_;
  int64_t stamp_ = 0;
};

}  // namespace

BOOST_AUTO_TEST_CASE(nobody_changes_what_another_holds_whatever_comes) {
  size_t num_taken = 0;
  size_t num_joined = 0;
  size_t num_copies = 0;
  for (uint32_t seed = 0; seed < 100; ++seed) {
    BOOST_TEST_CONTEXT("seed " << seed) {
      Play play(seed);
      for (int i = 0; i < 600; ++i) play.step();
      num_taken += play.num_taken_;
      num_joined += play.num_joined_;
      num_copies += play.num_copies_;
    }
  }
  BOOST_TEST(num_taken > 5000);  // it is not that everything was refused
  BOOST_TEST(num_joined > 500);
  BOOST_TEST(num_copies > 500);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::models
