// The one law on the engine: a request's tokens and log-probabilities are what it gets alone,
// whatever runs beside it and whatever happens to it. Some settings here; all of them in
// replay_grid_test.cc. A setting that fails prints its seed: narrow the loop to it to run it again.
#include <array>
#include <boost/test/unit_test.hpp>
#include <numeric>
#include <set>

#include "tests/actors/replay.h"

namespace chainpump::actors {
namespace {

constexpr std::array kKvTypes = {DType::f32, DType::f16, DType::bf16, DType::int8};

}  // namespace

BOOST_AUTO_TEST_CASE(a_request_gets_the_same_alone_and_among_others) {
  const ReplayModel model;
  const std::vector<Asked> asked = draw_requests(20261123, 100);
  uint64_t preemptions = 0;
  uint64_t hits = 0;
  int num_cut_short = 0;
  std::vector<std::vector<std::vector<Outcome>>> alone;
  for (const DType kv_type : kKvTypes) alone.push_back(run_alone(model, kv_type, asked));
  // 4 and 5 have no divisor in common, so 20 seeds hold every pair of KV type and stages.
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Setting setting;
    setting.seed = seed;
    setting.kv_type = kKvTypes[seed % 4];
    setting.num_stages = 1 + static_cast<int>(seed % 5);
    setting.num_lanes = 1 + static_cast<int>(seed / 2 % 2);
    setting.prefix_cache = seed % 3 != 0;
    const Replayed report = replay(model, setting, asked, alone[seed % 4]);
    BOOST_REQUIRE_MESSAGE(report.wrong.empty(), describe(setting) << ": " << report.wrong);
    preemptions += report.preemptions;
    hits += setting.prefix_cache ? report.prompt_tokens_hit : 0;
    num_cut_short += report.num_cut_short;
  }
  BOOST_TEST_MESSAGE(preemptions << " preemptions, " << hits << " tokens hit, " << num_cut_short
                                 << " choices cut short");
  // Else nothing was tried.
  BOOST_TEST(preemptions > 50u);
  BOOST_TEST(hits > 5000u);
  BOOST_TEST(num_cut_short > 100);
}

// The same requests on machines of three speeds: the slower the steps, the shorter the chunks that
// keep others' tokens coming.
BOOST_AUTO_TEST_CASE(chunks_sized_by_measured_times_change_no_bit) {
  const ReplayModel model;
  const std::vector<Asked> asked = draw_requests(7, 100);
  const auto alone = run_alone(model, DType::f32, asked);
  std::vector<double> usual;  // length of a chunk, by speed
  for (const double slow : {0.1, 1.0, 10.0}) {
    const Setting setting{
        .num_stages = 3, .prefix_cache = false, .seed = 77, .measured_chunks_at = slow};
    const Replayed report = replay(model, setting, asked, alone);
    BOOST_REQUIRE_MESSAGE(report.wrong.empty(), describe(setting) << ": " << report.wrong);
    const std::set<int32_t> lengths(report.chunks.begin(), report.chunks.end());
    usual.push_back(std::accumulate(report.chunks.begin(), report.chunks.end(), 0.0) /
                    static_cast<double>(report.chunks.size()));
    BOOST_TEST_MESSAGE(report.chunks.size() << " chunks of " << lengths.size()
                                            << " lengths, on average " << usual.back());
    BOOST_TEST(lengths.size() >= 5u);
  }
  // Else it was not the times that sized them.
  BOOST_TEST(usual[0] > 1.5 * usual[1]);
  BOOST_TEST(usual[1] > 1.5 * usual[2]);
}

}  // namespace chainpump::actors
