// What is left to be copied of a stage's KV while it works; and that a table is taken over only
// whole.
#include "models/kv_account.h"

#include <boost/test/unit_test.hpp>

namespace chainpump::models {
namespace {

constexpr graph::MicrobatchLimits kLimits{.max_tokens = 200,
                                          .max_sequences = 2,
                                          .context_tokens = 160,
                                          .num_kv_blocks = 8,
                                          .vocabulary_size = 100};

struct Account {
  SequenceTable table{kLimits};
  KvAccount account{8};

  void run(uint64_t id, int32_t first, int32_t count, int32_t offset, std::vector<int32_t> blocks,
           std::vector<uint64_t> released = {}, std::vector<graph::BlockCopy> copies = {}) {
    graph::Microbatch microbatch;
    if (!table.contains(SequenceId(id))) {
      graph::SequenceDescriptor descriptor;
      descriptor.id = SequenceId(id);
      microbatch.descriptors.push_back(descriptor);
    }
    graph::SequenceSlice& slice = microbatch.slices.emplace_back();
    slice.id = SequenceId(id);
    slice.first_position = first;
    slice.tokens.assign(static_cast<size_t>(count), 1);
    slice.table_offset = offset;
    for (const int32_t block : blocks) slice.new_blocks.emplace_back(block);
    for (const uint64_t gone : released) microbatch.released.emplace_back(gone);
    microbatch.copies = std::move(copies);
    const Status good = table.check(microbatch);
    BOOST_TEST_REQUIRE(good.ok(), (good.ok() ? "" : good.error().message));
    table.apply(microbatch);
  }
  /// Copies what a round finds.
  std::vector<int32_t> round(bool all = false) {
    std::vector<int32_t> found;
    account.begin_round(table, all);
    while (const auto version = account.next(table)) {
      found.push_back(version->block.value);
      account.note_copied(*version);
    }
    BOOST_TEST(account.num_found() == std::ssize(found));
    return found;
  }
};

using Blocks = std::vector<int32_t>;

}  // namespace

BOOST_FIXTURE_TEST_SUITE(kv_account, Account)

BOOST_AUTO_TEST_CASE(full_blocks_first_and_the_others_at_last) {
  run(1, 0, 70, 0, {4, 2, 7});
  BOOST_TEST((round() == Blocks{4, 2}));
  BOOST_TEST((round() == Blocks{}));
  run(1, 70, 26, 3, {});
  BOOST_TEST((round() == Blocks{7}));
  run(1, 96, 3, 3, {0});
  BOOST_TEST((round() == Blocks{}));
  BOOST_TEST((round(true) == Blocks{0}));
  BOOST_TEST((round(true) == Blocks{}));
  run(1, 99, 1, 4, {});
  BOOST_TEST((round(true) == Blocks{0}));  // it has grown
}

BOOST_AUTO_TEST_CASE(what_another_writes_anew_is_copied_anew) {
  run(1, 0, 64, 0, {1, 2});
  BOOST_TEST((round() == Blocks{1, 2}));
  run(2, 0, 32, 0, {2}, {1});
  BOOST_TEST((round() == Blocks{2}));
  // So is what a block was copied into, and what is cut back and computed again.
  run(2, 32, 32, 1, {5}, {}, {{KvBlockId(2), KvBlockId(1)}});
  BOOST_TEST((round() == Blocks{5}));
  run(1, 32, 32, 0, {1, 3});
  BOOST_TEST((round() == Blocks{1, 3}));
}

BOOST_AUTO_TEST_CASE(a_block_that_changes_while_it_is_copied_is_found_again) {
  run(1, 0, 32, 0, {1});
  account.begin_round(table, false);
  const auto version = account.next(table);
  BOOST_TEST_REQUIRE(version.has_value());
  run(2, 0, 32, 0, {1}, {1});
  account.note_copied(*version);
  BOOST_TEST((round() == Blocks{1}));
}

/// Not copied, but still held: whoever asks for it has to know where it lies.
BOOST_AUTO_TEST_CASE(what_lies_beyond_a_table_that_is_not_told_yet) {
  run(1, 0, 90, 0, {1, 2, 3});
  graph::Microbatch again;
  again.descriptors.emplace_back().id = SequenceId(1);
  graph::SequenceSlice& slice = again.slices.emplace_back();
  slice.id = SequenceId(1);
  slice.tokens.assign(40, 1);
  slice.new_blocks = {KvBlockId(1), KvBlockId(2)};
  BOOST_TEST_REQUIRE(table.check(again).ok());
  table.apply(again);
  BOOST_TEST(table.held_as_told(SequenceId(1)).num_positions == 64);
  BOOST_TEST(table.held_as_told(SequenceId(1)).table.size() == 2u);
  BOOST_TEST(table.held(SequenceId(1)).num_positions == 90);
  BOOST_TEST(
      (table.held(SequenceId(1)).table == std::vector{KvBlockId(1), KvBlockId(2), KvBlockId(3)}));
  BOOST_TEST((round(true) == Blocks{1, 2}));
}

BOOST_AUTO_TEST_CASE(a_table_is_taken_over) {
  run(1, 0, 40, 0, {4, 2});
  run(2, 0, 5, 0, {6});
  SequenceTable other(kLimits);
  const std::vector<graph::StageHoldings::Held> all = {table.held(SequenceId(1)),
                                                       table.held(SequenceId(2))};
  BOOST_TEST(other.take_over(all).ok());
  BOOST_TEST(other.num_blocks_held() == 3);
  BOOST_TEST(other.num_tokens(SequenceId(1)) == 40);
  BOOST_TEST(!other.take_over({}).ok());  // it holds something
  table = other;
  run(1, 40, 1, 2, {});  // and goes on
  BOOST_TEST((round(true) == Blocks{4, 2, 6}));
}

BOOST_AUTO_TEST_CASE(or_not_at_all) {
  run(1, 0, 40, 0, {4, 2});
  const graph::StageHoldings::Held good = table.held(SequenceId(1));
  const auto refused = [&](auto change) {
    std::vector<graph::StageHoldings::Held> all = {good};
    change(all);
    SequenceTable other(kLimits);
    const Status taken = other.take_over(all);
    return !taken.ok() && other.num_sequences() == 0 && other.num_blocks_held() == 0;
  };
  BOOST_TEST(refused([&](auto& all) { all.push_back(good); }));
  BOOST_TEST(refused([](auto& all) { all[0].id = SequenceId(0); }));
  BOOST_TEST(refused([](auto& all) { all[0].num_positions = 65; }));
  BOOST_TEST(refused([](auto& all) { all[0].num_positions = -1; }));
  BOOST_TEST(refused([](auto& all) { all[0].table[1] = KvBlockId(8); }));
  BOOST_TEST(refused([](auto& all) { all[0].table[1] = KvBlockId(4); }));
  BOOST_TEST(refused([&](auto& all) {
    for (uint64_t id = 2; id < 4; ++id) {
      all.push_back(good);
      all.back().id = SequenceId(id);
    }
  }));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::models
