// The one law on the engine, over the whole grid: 500 requests for every KV type, number of stages
// and lanes, with prefix cache and without. What else there is to choose comes from the seed.
#include <boost/test/unit_test.hpp>

#include "tests/actors/replay.h"

namespace chainpump::actors {
namespace {

void check_grid(DType kv_type) {
  const ReplayModel model;
  const std::vector<Asked> asked = draw_requests(1, 500);
  const auto alone = run_alone(model, kv_type, asked);
  uint64_t seed = 1000;
  uint64_t preemptions = 0;
  uint64_t hits = 0;
  for (int num_stages = 1; num_stages <= 5; ++num_stages)
    for (const int num_lanes : {1, 2})
      for (const bool prefix_cache : {false, true})
        for (int round = 0; round < 3; ++round) {
          const Setting setting{.kv_type = kv_type,
                                .num_stages = num_stages,
                                .num_lanes = num_lanes,
                                .prefix_cache = prefix_cache,
                                .seed = ++seed};
          const Replayed report = replay(model, setting, asked, alone);
          BOOST_REQUIRE_MESSAGE(report.wrong.empty(), describe(setting) << ": " << report.wrong);
          preemptions += report.preemptions;
          hits += prefix_cache ? report.prompt_tokens_hit : 0;
        }
  BOOST_TEST_MESSAGE(preemptions << " preemptions, " << hits << " tokens hit");
  BOOST_TEST(preemptions > 300u);  // else nothing was tried
  BOOST_TEST(hits > 50'000u);
}

}  // namespace

BOOST_AUTO_TEST_CASE(among_500_requests_with_f32_kv) { check_grid(DType::f32); }
BOOST_AUTO_TEST_CASE(among_500_requests_with_f16_kv) { check_grid(DType::f16); }
BOOST_AUTO_TEST_CASE(among_500_requests_with_bf16_kv) { check_grid(DType::bf16); }
BOOST_AUTO_TEST_CASE(among_500_requests_with_int8_kv) { check_grid(DType::int8); }

}  // namespace chainpump::actors
