// The one law on the engine, over the whole grid: 500 requests for every KV type, number of stages
// and lanes, with prefix cache and without. What else there is to choose comes from the seed.
#include <array>
#include <boost/test/unit_test.hpp>

#include "tests/actors/replay.h"

namespace chainpump::actors {

BOOST_AUTO_TEST_CASE(five_hundred_requests_get_the_same_alone_and_among_others) {
  const ReplayModel model;
  const std::vector<Asked> asked = draw_requests(1, 500);
  uint64_t seed = 1000;
  for (const DType kv_type : {DType::f32, DType::f16, DType::bf16, DType::int8}) {
    const auto alone = run_alone(model, kv_type, asked);
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
    BOOST_TEST_MESSAGE(to_string(kv_type)
                       << " KV: " << preemptions << " preemptions, " << hits << " tokens hit");
    BOOST_TEST(preemptions > 1000u);  // else nothing was tried
    BOOST_TEST(hits > 50'000u);
  }
}

}  // namespace chainpump::actors
