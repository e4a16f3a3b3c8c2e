#include "graph/kv_cache.h"

#include <boost/test/unit_test.hpp>

#include <numeric>
#include <vector>

namespace chainpump::graph {
namespace {

constexpr uint64_t kSalt = 17;

std::vector<TokenId> tokens_from(TokenId first, int count) {
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

KvCacheOptions small_options(int32_t num_blocks = 8) {
  return {.first_block = 100, .num_blocks = num_blocks, .block_tokens = 4};
}

// Allocates and publishes whole blocks for what `table` does not cover yet.
ContentId fill(KvCache& cache, const std::vector<TokenId>& tokens, ContentId content,
               std::vector<KvBlockId>& table, uint64_t salt = kSalt) {
  for (size_t i = table.size(); i < tokens.size() / 4; ++i) {
    const auto block = cache.allocate();
    BOOST_TEST_REQUIRE(block.has_value());
    table.push_back(*block);
    content = cache.publish(salt, content, std::span(tokens).subspan(i * 4, 4), *block);
  }
  return content;
}

std::vector<KvBlockId> filled(KvCache& cache, const std::vector<TokenId>& tokens,
                              uint64_t salt = kSalt) {
  std::vector<KvBlockId> table;
  fill(cache, tokens, {}, table, salt);
  return table;
}

BOOST_AUTO_TEST_SUITE(kv_cache)

BOOST_AUTO_TEST_CASE(hands_out_its_share_of_ids_once_each) {
  KvCache cache(small_options(3));
  std::vector<KvBlockId> blocks;
  while (const auto block = cache.allocate()) blocks.push_back(*block);
  BOOST_TEST((blocks == (std::vector{KvBlockId(100), KvBlockId(101), KvBlockId(102)})));
  BOOST_TEST(cache.num_free() == 0);
  BOOST_TEST(cache.num_referenced() == 3);
  cache.release(blocks);
  BOOST_TEST(cache.num_free() == 3);
  BOOST_TEST(cache.num_cached() == 0);  // they held nothing that anybody could ask for
}

BOOST_AUTO_TEST_CASE(a_prefix_is_found_while_in_use_and_after) {
  KvCache cache(small_options());
  const auto prompt = tokens_from(0, 12);
  const auto first = filled(cache, prompt);
  std::vector<KvBlockId> second;
  const ContentId content = cache.match(kSalt, prompt, 99, second);
  BOOST_TEST((second == first));
  BOOST_TEST(cache.num_references(first[0]) == 2);
  BOOST_TEST(cache.num_referenced() == 3);
  cache.release(first);
  cache.release(second);
  BOOST_TEST(cache.num_cached() == 3);
  BOOST_TEST(cache.num_free() == 8);
  std::vector<KvBlockId> third;
  BOOST_TEST((cache.match(kSalt, prompt, 99, third) == content));
  BOOST_TEST((third == first));
  BOOST_TEST(cache.num_cached() == 0);
}

BOOST_AUTO_TEST_CASE(only_whole_equal_leading_blocks_of_the_same_tenant_match) {
  KvCache cache(small_options());
  const auto prompt = tokens_from(0, 12);
  filled(cache, prompt);
  auto other_end = prompt;
  other_end[11] = 99;
  auto other_middle = prompt;
  other_middle[4] = 99;
  auto other_start = prompt;
  other_start[0] = 99;
  struct Case {
    uint64_t salt;
    std::vector<TokenId> tokens;
    int32_t max_blocks;
    int32_t expected;
  };
  const std::vector<Case> cases = {
      {kSalt, prompt, 3, 3},
      {kSalt, prompt, 2, 2},
      {kSalt, prompt, 0, 0},
      {kSalt, prompt, -1, 0},
      {kSalt, tokens_from(0, 40), 99, 3},
      {kSalt, tokens_from(0, 11), 99, 2},
      {kSalt, tokens_from(0, 3), 99, 0},
      {kSalt, {}, 99, 0},
      {kSalt, other_end, 99, 2},
      {kSalt, other_middle, 99, 1},
      {kSalt, other_start, 99, 0},
      {kSalt, tokens_from(4, 8), 99, 0},  // published, but after another beginning
      {kSalt + 1, prompt, 99, 0},
      {0, prompt, 99, 0},
  };
  for (const Case& c : cases) {
    BOOST_TEST(cache.num_matching(c.salt, c.tokens, c.max_blocks) == c.expected);
    std::vector<KvBlockId> table;
    const ContentId content = cache.match(c.salt, c.tokens, c.max_blocks, table);
    BOOST_TEST(static_cast<int32_t>(table.size()) == c.expected);
    BOOST_TEST((content.value == 0) == (c.expected == 0));
    cache.release(table);
  }
}

BOOST_AUTO_TEST_CASE(match_appends_to_what_the_table_holds) {
  KvCache cache(small_options());
  filled(cache, tokens_from(0, 4));
  std::vector<KvBlockId> table = {KvBlockId(107)};
  cache.match(kSalt, tokens_from(0, 4), 1, table);
  BOOST_TEST((table == (std::vector{KvBlockId(107), KvBlockId(100)})));
}

BOOST_AUTO_TEST_CASE(equal_salts_share) {
  KvCache cache(small_options());
  cache.release(filled(cache, tokens_from(0, 8), 0));
  BOOST_TEST(cache.num_matching(0, tokens_from(0, 8), 9) == 2);
}

BOOST_AUTO_TEST_CASE(evicts_the_least_recently_used_tail_first) {
  KvCache cache(small_options(6));
  const auto a = tokens_from(0, 12);
  const auto b = tokens_from(50, 12);
  const auto blocks_a = filled(cache, a);
  const auto blocks_b = filled(cache, b);
  cache.release(blocks_a);
  cache.release(blocks_b);
  std::vector<KvBlockId> used;  // touch a: now b is the older
  cache.match(kSalt, a, 9, used);
  cache.release(used);
  std::vector<KvBlockId> order;
  while (const auto block = cache.allocate()) order.push_back(*block);
  const std::vector expected = {blocks_b[2], blocks_b[1], blocks_b[0],
                                blocks_a[2], blocks_a[1], blocks_a[0]};
  BOOST_TEST((order == expected));
}

BOOST_AUTO_TEST_CASE(a_shorter_use_keeps_the_tail_older_than_the_head) {
  KvCache cache(small_options(3));
  const auto a = tokens_from(0, 12);
  cache.release(filled(cache, a));
  std::vector<KvBlockId> head;
  cache.match(kSalt, a, 1, head);
  cache.release(head);
  BOOST_TEST(cache.allocate().has_value());
  BOOST_TEST(cache.num_matching(kSalt, a, 9) == 2);
  BOOST_TEST(cache.allocate().has_value());
  BOOST_TEST(cache.num_matching(kSalt, a, 9) == 1);
}

BOOST_AUTO_TEST_CASE(looking_does_not_change_the_order_of_eviction) {
  KvCache cache(small_options(2));
  cache.release(filled(cache, tokens_from(0, 4)));
  cache.release(filled(cache, tokens_from(50, 4)));
  BOOST_TEST(cache.num_matching(kSalt, tokens_from(0, 4), 1) == 1);
  BOOST_TEST(cache.allocate().has_value());
  BOOST_TEST(cache.num_matching(kSalt, tokens_from(0, 4), 1) == 0);
  BOOST_TEST(cache.num_matching(kSalt, tokens_from(50, 4), 1) == 1);
}

BOOST_AUTO_TEST_CASE(free_blocks_are_given_before_cached_ones) {
  KvCache cache(small_options(3));
  cache.release(filled(cache, tokens_from(0, 4)));
  BOOST_TEST((cache.allocate() != KvBlockId(100)));
  BOOST_TEST((cache.allocate() != KvBlockId(100)));
  BOOST_TEST(cache.num_matching(kSalt, tokens_from(0, 4), 1) == 1);
  BOOST_TEST((cache.allocate() == KvBlockId(100)));
  BOOST_TEST(cache.num_matching(kSalt, tokens_from(0, 4), 1) == 0);
  BOOST_TEST(!cache.allocate().has_value());
}

// Two sequences compute one prompt side by side: the first block published stays the one that is
// found, until it goes; then the other's is.
BOOST_AUTO_TEST_CASE(content_known_already_is_published_once) {
  KvCache cache(small_options());
  const auto prompt = tokens_from(0, 8);
  std::vector<KvBlockId> first;
  std::vector<KvBlockId> second;
  const ContentId content = fill(cache, prompt, {}, first);
  BOOST_TEST((fill(cache, prompt, {}, second) == content));
  std::vector<KvBlockId> found;
  cache.match(kSalt, prompt, 9, found);
  BOOST_TEST((found == first));
  cache.release(found);
  cache.release(first);
  BOOST_TEST(cache.num_cached() == 0);  // held by the second: no need to hold them twice
  BOOST_TEST(cache.num_free() == 6);
  found.clear();
  BOOST_TEST((cache.match(kSalt, prompt, 9, found) == content));
  BOOST_TEST((found == second));
  cache.release(found);
  cache.release(second);
  BOOST_TEST(cache.num_cached() == 2);
  BOOST_TEST(cache.num_matching(kSalt, prompt, 9) == 2);
}

BOOST_AUTO_TEST_CASE(a_duplicate_leaves_from_any_place_among_its_equals) {
  const auto prompt = tokens_from(0, 4);
  const std::vector<std::vector<size_t>> orders = {{0, 1, 2}, {1, 0, 2}, {2, 1, 0}, {1, 2, 0}};
  for (const auto& order : orders) {
    KvCache cache(small_options());
    std::vector<std::vector<KvBlockId>> tables;
    for (int i = 0; i < 3; ++i) tables.push_back(filled(cache, prompt));
    for (size_t i = 0; i < 3; ++i) {
      BOOST_TEST(cache.num_matching(kSalt, prompt, 9) == 1);
      BOOST_TEST(cache.num_cached() == 0);
      cache.release(tables[order[i]]);
      BOOST_TEST(cache.num_free() == static_cast<int32_t>(6 + i));
    }
    BOOST_TEST(cache.num_cached() == 1);
    std::vector<KvBlockId> found;
    cache.match(kSalt, prompt, 9, found);
    BOOST_TEST((found == tables[order[2]]));
  }
}

// A prompt of whole blocks keeps its last one to itself, so it computes it again.
BOOST_AUTO_TEST_CASE(content_that_was_only_cached_moves_to_the_block_in_use) {
  KvCache cache(small_options());
  const auto prompt = tokens_from(0, 8);
  std::vector<KvBlockId> first;
  const ContentId content = fill(cache, prompt, {}, first);
  cache.release(first);
  std::vector<KvBlockId> second;
  const ContentId before = cache.match(kSalt, prompt, 1, second);
  BOOST_TEST((fill(cache, prompt, before, second) == content));
  BOOST_TEST(cache.num_cached() == 0);
  BOOST_TEST(cache.num_referenced() == 2);
  std::vector<KvBlockId> found;
  cache.match(kSalt, prompt, 9, found);
  BOOST_TEST((found == second));
}

BOOST_AUTO_TEST_CASE(saying_it_twice_changes_nothing) {
  KvCache cache(small_options());
  const auto prompt = tokens_from(0, 4);
  const auto block = *cache.allocate();
  const ContentId content = cache.publish(kSalt, {}, prompt, block);
  BOOST_TEST((cache.publish(kSalt, {}, prompt, block) == content));
  const auto copy = *cache.allocate();
  BOOST_TEST((cache.publish(kSalt, {}, prompt, copy) == content));
  BOOST_TEST((cache.publish(kSalt, {}, prompt, copy) == content));
  cache.release(block);
  cache.release(copy);
  BOOST_TEST(cache.num_cached() == 1);
}

BOOST_AUTO_TEST_CASE(shared_blocks_stay_until_the_last_lets_go) {
  KvCache cache(small_options(2));
  const auto block = *cache.allocate();
  cache.share(block);
  cache.release(block);
  BOOST_TEST(cache.num_references(block) == 1);
  BOOST_TEST(cache.num_free() == 1);
  cache.release(block);
  BOOST_TEST(cache.num_references(block) == 0);
  BOOST_TEST(cache.num_free() == 2);
}

// A content id of old, kept by somebody, must not lead to what is published later.
BOOST_AUTO_TEST_CASE(content_ids_are_never_used_again) {
  KvCache cache(small_options(1));
  const auto a = tokens_from(0, 4);
  auto block = *cache.allocate();
  const ContentId old_id = cache.publish(kSalt, {}, a, block);
  cache.release(block);
  block = *cache.allocate();  // evicts it
  const ContentId new_id = cache.publish(kSalt, {}, a, block);
  BOOST_TEST(old_id.hash == new_id.hash);
  BOOST_TEST(old_id.value != new_id.value);
}

BOOST_AUTO_TEST_CASE(hashes_depend_on_salt_and_beginning) {
  KvCache cache(small_options());
  const auto tokens = tokens_from(0, 4);
  const ContentId one = cache.publish(1, {}, tokens, *cache.allocate());
  const ContentId two = cache.publish(2, {}, tokens, *cache.allocate());
  const ContentId after = cache.publish(1, one, tokens, *cache.allocate());
  BOOST_TEST(one.hash != two.hash);
  BOOST_TEST(one.hash != after.hash);
}

BOOST_AUTO_TEST_CASE(clear_forgets_all_content_and_no_reference) {
  KvCache cache(small_options());
  const auto kept = filled(cache, tokens_from(0, 8));
  const auto copy = filled(cache, tokens_from(0, 8));
  cache.release(filled(cache, tokens_from(50, 8)));
  cache.clear();
  BOOST_TEST(cache.num_cached() == 0);
  BOOST_TEST(cache.num_referenced() == 4);
  BOOST_TEST(cache.num_free() == 4);
  BOOST_TEST(cache.num_matching(kSalt, tokens_from(0, 8), 9) == 0);
  BOOST_TEST(cache.num_matching(kSalt, tokens_from(50, 8), 9) == 0);
  cache.release(kept);
  cache.release(copy);
  BOOST_TEST(cache.num_cached() == 0);
  BOOST_TEST(cache.num_free() == 8);
}

BOOST_AUTO_TEST_CASE(without_a_prefix_cache_nothing_is_kept_or_found) {
  KvCacheOptions options = small_options();
  options.prefix_cache = false;
  KvCache cache(options);
  const auto table = filled(cache, tokens_from(0, 8));
  BOOST_TEST(cache.num_matching(kSalt, tokens_from(0, 8), 9) == 0);
  std::vector<KvBlockId> found;
  BOOST_TEST((cache.match(kSalt, tokens_from(0, 8), 9, found) == ContentId{}));
  BOOST_TEST(found.empty());
  cache.release(table);
  BOOST_TEST(cache.num_cached() == 0);
  BOOST_TEST(cache.num_free() == 8);
}

BOOST_AUTO_TEST_CASE(colliding_hashes_are_told_apart) {
  KvCacheOptions options = small_options(40);
  options.hash_mask = 0;
  KvCache cache(options);
  for (TokenId first = 0; first < 10; ++first) filled(cache, tokens_from(first * 100, 8));
  for (TokenId first = 0; first < 10; ++first) {
    BOOST_TEST(cache.num_matching(kSalt, tokens_from(first * 100, 8), 9) == 2);
    BOOST_TEST(cache.num_matching(kSalt, tokens_from(first * 100 + 4, 8), 9) == 0);
    BOOST_TEST(cache.num_matching(kSalt + 1, tokens_from(first * 100, 8), 9) == 0);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::graph
