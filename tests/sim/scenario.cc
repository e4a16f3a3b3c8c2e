#include "tests/sim/scenario.h"

#include <algorithm>

namespace chainpump::sim {
namespace {

using namespace std::chrono_literals;

graph::SequencerOptions draw_lane(Random& random, const Scenario& scenario, int lane) {
  graph::SequencerOptions options;
  options.lane = static_cast<uint8_t>(lane);
  options.first_kv_block = lane * scenario.kv_blocks_per_lane;
  for (int i = 0; i < scenario.num_stages(); ++i)
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
  options.max_microbatches = 1 + random.pick(scenario.num_stages() + 2);
  options.vocabulary_size = kVocabulary;
  options.prefix_cache = !random.chance(4);
  options.decode_delay_max = random.up_to(2ms);
  options.cost_prior = scenario.cost;
  options.cost_prior.overhead_s *= random.uniform(0.3, 3);
  options.cost_prior.token_s *= random.uniform(0.3, 3);
  return options;
}

/// A stage has a rank for each lane, or one for all, which may have standbys.
graph::Plan draw_plan(Random& random, bool saturated) {
  graph::Plan plan;
  const int num_lanes = saturated ? 1 : 1 + random.pick(2);
  plan.stages.resize(static_cast<size_t>(saturated ? 1 + random.pick(2) : 1 + random.pick(5)));
  bool any_has_all = false;
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    graph::StagePlan& stage = plan.stages[i];
    stage.index = StageIndex(static_cast<int32_t>(i));
    stage.name = fmt::format("s{}", i);
    stage.layer_begin = static_cast<int32_t>(i);
    stage.layer_end = stage.layer_begin + 1;
    const bool last = i + 1 == plan.stages.size();
    const bool shared = num_lanes > 1 && random.chance(3) && (any_has_all || !last);
    stage.devices.resize(shared ? 1 : static_cast<size_t>(num_lanes));
    any_has_all |= !shared;
    if (stage.devices.size() == 1 && !saturated && random.chance(2))
      stage.standbys = 1 + random.pick(2);
  }
  constexpr int32_t kFewRestarts[] = {0, 1, 3, 6};
  plan.failover_restarts = random.chance(8) ? kFewRestarts[random.pick(4)] : 100000;
  return plan;
}

Fault draw_fault(Random& random) {
  using K = FaultKind;
  // The first is the most frequent.
  constexpr K kKinds[] = {
      K::rank_dies,        K::rank_dies,        K::rank_dies,    K::rank_dies,
      K::two_ranks_die,    K::two_ranks_die,    K::rank_stops,   K::rank_stops,
      K::rank_stuck,       K::link_breaks,      K::link_breaks,  K::coordinator_dies,
      K::coordinator_dies, K::coordinator_dies, K::gateway_dies, K::agent_dies,
      K::store_slow,       K::store_slow,       K::kill_slow,    K::rank_moves,
      K::rank_moves,       K::rank_moves,       K::rank_moves,   K::plan_changes,
      K::plan_changes,     K::plan_changes,     K::plan_changes, K::plan_changes,
      K::plan_changes,     K::plan_changes};
  Fault fault{.kind = kKinds[random.pick(std::size(kKinds))],
              .after_events = 1 << random.pick(11),
              .lasts = random.up_to(50ms)};
  fault.after_events += random.pick(fault.after_events);
  if (fault.kind == K::rank_stops || fault.kind == K::rank_stuck)
    fault.lasts = random.up_to(random.chance(2) ? 600ms : 3s);
  if (fault.kind == K::store_slow || fault.kind == K::kill_slow) fault.lasts = random.up_to(3s);
  if (fault.kind == K::coordinator_dies && random.chance(4)) fault.lasts = random.up_to(3s);
  if (fault.kind == K::store_slow && random.chance(12)) fault.kind = K::store_fails;
  return fault;
}

}  // namespace

Scenario Scenario::draw(Random& random) {
  Scenario s;
  s.saturated = random.chance(8);
  s.plan = draw_plan(random, s.saturated);
  s.kv_blocks_per_lane =
      !random.chance(4) ? kContext / kBlockTokens + random.pick(3) : 12 + random.pick(30);
  s.credits = 1 + random.pick(4);
  s.cost = {random.uniform(20e-6, 300e-6), random.uniform(1e-6, 20e-6), random.uniform(0, 50e-9)};
  s.delay = random.up_to(200us);
  s.jitter = random.up_to(100us);
  for (int i = 0; i < graph::num_lanes(s.plan); ++i) s.lanes.push_back(draw_lane(random, s, i));
  s.call_delay = 1us + random.up_to(1ms);
  s.start_delay = random.up_to(20ms);
  s.load_delay = random.up_to(50ms);
  if (s.saturated) {
    s.num_requests = s.num_at_first = 720;
    return s;
  }
  s.stall_in = random.chance(2) ? 5 + random.pick(60) : 0;
  s.stall_max = random.up_to(20ms);
  s.log_blocks = random.chance(3) ? random.pick(s.kv_blocks_per_lane) : s.kv_blocks_per_lane;
  s.num_requests = 3 + random.pick(60);
  s.num_at_first = 1 + random.pick(s.num_requests);
  s.arrivals = random.up_to(30ms);
  s.cancel_in = random.chance(4) ? 0 : 2 + random.pick(6);
  if (random.chance(5)) return s;
  for (int i = 1 + random.pick(20); i > 0; --i) s.faults.push_back(draw_fault(random));
  s.call_fault_in = random.chance(2) ? 3 + random.pick(20) : 0;
  return s;
}

}  // namespace chainpump::sim
