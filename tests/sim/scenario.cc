#include "tests/sim/scenario.h"

#include <algorithm>

namespace chainpump::sim {
namespace {

using namespace std::chrono_literals;

graph::SequencerOptions draw_lane(Random& random, const Scenario& scenario, int lane) {
  graph::SequencerOptions options;
  options.lane = static_cast<uint8_t>(lane);
  options.first_kv_block = lane * scenario.kv_blocks_per_lane;
  for (int i = 0; i < scenario.num_stages; ++i)
    options.stages.push_back(
        {fmt::format("stage {}", i),
         scenario.kv_blocks_per_lane -
             random.pick(std::min(3, scenario.kv_blocks_per_lane - kContext / kBlockTokens + 1))});
  options.block_tokens = kBlockTokens;
  options.context_tokens = kContext;
  options.max_microbatch_tokens = 1 + random.pick(random.chance(3) ? 16 : 100);
  options.prefill_chunk_tokens =
      random.chance(2) ? 1 + random.pick(options.max_microbatch_tokens) : 0;
  options.max_sequences = scenario.saturated ? 2 + random.pick(4) : 1 + random.pick(12);
  options.max_queued = scenario.saturated ? 1024 : 3 + random.pick(30);
  options.max_microbatches = 1 + random.pick(scenario.num_stages + 2);
  options.vocabulary_size = kVocabulary;
  options.prefix_cache = !random.chance(4);
  options.decode_delay_max = random.up_to(2ms);
  options.cost_prior = scenario.cost;
  options.cost_prior.overhead_s *= random.uniform(0.3, 3);
  options.cost_prior.token_s *= random.uniform(0.3, 3);
  return options;
}

}  // namespace

Scenario Scenario::draw(Random& random) {
  Scenario s;
  s.saturated = random.chance(8);
  s.num_lanes = s.saturated ? 1 : 1 + random.pick(2);
  s.num_stages = s.saturated ? 1 + random.pick(2) : 1 + random.pick(5);
  s.last_rank_shared = s.num_lanes == 2 && random.chance(2);
  s.kv_blocks_per_lane =
      !random.chance(4) ? kContext / kBlockTokens + random.pick(3) : 12 + random.pick(30);
  s.credits = 1 + random.pick(4);
  s.cost = {random.uniform(20e-6, 300e-6), random.uniform(1e-6, 20e-6), random.uniform(0, 50e-9)};
  s.delay = random.up_to(200us);
  s.jitter = random.up_to(100us);
  for (int i = 0; i < s.num_lanes; ++i) s.lanes.push_back(draw_lane(random, s, i));
  if (s.saturated) {
    s.num_requests = 720;
    return s;
  }
  s.stall_in = random.chance(2) ? 5 + random.pick(60) : 0;
  s.stall_max = random.up_to(20ms);
  s.num_closes = random.chance(3) ? 1 + random.pick(3) : 0;
  s.num_deaths = random.chance(2) ? 1 + random.pick(6) : 0;
  s.log_blocks = random.chance(3) ? random.pick(s.kv_blocks_per_lane) : s.kv_blocks_per_lane;
  s.num_requests = 3 + random.pick(50);
  s.arrivals = random.up_to(30ms);
  s.cancel_in = random.chance(4) ? 0 : 2 + random.pick(6);
  return s;
}

}  // namespace chainpump::sim
