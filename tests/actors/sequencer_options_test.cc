#include "actors/sequencer_options.h"

#include <boost/test/unit_test.hpp>

#include "actors/convert.h"
#include "graph/graph.h"
#include "graph/planner.h"

namespace chainpump::actors {
namespace {

using namespace std::chrono_literals;

graph::Plan plan_of(std::string_view text) {
  graph::ModelProfile model;
  model.num_layers = 4;
  model.hidden_size = 64;
  model.num_heads = model.num_kv_heads = 2;
  model.head_dim = 32;
  model.vocabulary_size = 300;
  model.context_tokens = 256;
  model.embedding = model.head = {1000, {{DType::q8_0, 1000}}};
  model.layers.assign(4, {1'000'000, {{DType::q4_1, 1'000'000}}});
  const auto graph = graph::parse_graph_text(text, "f");
  BOOST_REQUIRE(graph.ok());
  graph::PlanOverrides two_stages;
  two_stages.stages = 2;
  const auto plan =
      make_plan(*graph, model, graph::nominal_machine(2, int64_t{4} << 30), two_stages);
  BOOST_REQUIRE(plan.ok());
  return *plan;
}

// From the file to the sequencer, over the wire.
BOOST_AUTO_TEST_CASE(what_a_graph_file_sets_reaches_the_sequencer) {
  const auto options_of = [](std::string_view text) {
    const auto arrived = from_wire(to_wire(plan_of(text)));
    BOOST_REQUIRE(arrived.ok());
    return sequencer_options(*arrived, graph::LaneId(0), 300);
  };
  const graph::SequencerOptions usual = options_of("name: a\n");
  BOOST_TEST(usual.prefill_chunk_tokens == 256);
  BOOST_TEST(usual.max_microbatch_tokens == 256 + 32);
  BOOST_TEST(usual.max_sequences == 32);
  BOOST_TEST(usual.max_queued == 1024);
  BOOST_TEST(usual.prefix_cache);
  BOOST_TEST((usual.decode_delay_max == 100ms));
  const graph::SequencerOptions by_cost = options_of("batching: {prefill_chunk: auto}\n");
  BOOST_TEST(by_cost.prefill_chunk_tokens == 0);
  BOOST_TEST(by_cost.max_microbatch_tokens == 512 + 32);
  const graph::SequencerOptions set = options_of(
      "batching: {prefill_chunk: 64, decode_delay: 2s, max_sequences: 3, max_queued: 5}\n"
      "kv: {prefix_cache: false}\n");
  BOOST_TEST(set.prefill_chunk_tokens == 64);
  BOOST_TEST(set.max_microbatch_tokens == 64 + 3);
  BOOST_TEST(set.max_sequences == 3);
  BOOST_TEST(set.max_queued == 5);
  BOOST_TEST(!set.prefix_cache);
  BOOST_TEST((set.decode_delay_max == 2s));
}

// Each lane's prefill delays all that its ranks serve.
BOOST_AUTO_TEST_CASE(lanes_that_share_a_rank_share_the_delay) {
  graph::Plan plan = plan_of("batching: {prefill_chunk: auto}\n");
  plan.stages[0].devices.resize(4);
  plan.stages[1].devices.resize(2);
  const auto arrived = from_wire(to_wire(plan));
  BOOST_REQUIRE(arrived.ok());
  const graph::SequencerOptions options = sequencer_options(*arrived, graph::LaneId(3), 300);
  BOOST_TEST(options.lane == 3);
  BOOST_TEST((options.decode_delay_max == 50ms));
  BOOST_TEST(options.stages[0].num_kv_blocks == plan.kv.num_blocks);
}

BOOST_AUTO_TEST_CASE(the_first_steps_cost_what_the_plan_predicts) {
  graph::Plan plan;
  plan.prefill_chunk_tokens = 101;
  plan.stages.resize(2);
  plan.stages[0].predicted_decode_s = 2e-3;
  plan.stages[0].predicted_prefill_s = 12e-3;
  plan.stages[1].predicted_decode_s = 9e-3;  // a large head: not what decides about chunks
  plan.stages[1].predicted_prefill_s = 11e-3;
  const graph::StepCost cost(predicted_cost(plan));
  graph::StepWork one, chunk;
  one.add(1, 0);
  chunk.add(101, 0);
  BOOST_TEST(cost.predict_s(one) == 2e-3, boost::test_tools::tolerance(1e-6));
  BOOST_TEST(cost.predict_s(chunk) == 12e-3, boost::test_tools::tolerance(1e-6));
  plan.stages[0].predicted_prefill_s = 1e-3;  // less than one token: nothing below zero
  plan.stages[1].predicted_prefill_s = 1e-3;
  BOOST_TEST(predicted_cost(plan).token_s == 0.0);
  plan.prefill_chunk_tokens = 1;
  BOOST_TEST(predicted_cost(plan).overhead_s == 0.0);
}

// A sequencer dies of settings that make no sense, so they must not come so far.
BOOST_AUTO_TEST_CASE(a_plan_beyond_the_bounds_is_refused) {
  const auto refused = [](auto change) {
    transport::rpc::Plan plan = to_wire(plan_of("name: a\n"));
    change(plan);
    const auto arrived = from_wire(plan);
    return !arrived.ok() && arrived.error().code == ErrorCode::invalid_argument;
  };
  BOOST_TEST(!refused([](transport::rpc::Plan&) {}));
  BOOST_TEST(refused([](transport::rpc::Plan& plan) { plan.max_queued = 0; }));
  BOOST_TEST(refused([](transport::rpc::Plan& plan) { plan.max_queued = 1 << 20; }));
  BOOST_TEST(refused([](transport::rpc::Plan& plan) { plan.max_sequences = 1 << 20; }));
  BOOST_TEST(refused([](transport::rpc::Plan& plan) { plan.decode_delay_ns = -1; }));
  BOOST_TEST(refused([](transport::rpc::Plan& plan) { plan.replay_log_bytes = -1; }));
  BOOST_TEST(refused([](transport::rpc::Plan& plan) { plan.failover_restarts = -1; }));
  BOOST_TEST(refused([](transport::rpc::Plan& plan) { plan.failover_window_ns = -1; }));
  BOOST_TEST(refused([](transport::rpc::Plan& plan) { plan.stages[0].standbys = -1; }));
  BOOST_TEST(refused([](transport::rpc::Plan& plan) { plan.stages[0].standbys = 65; }));
  BOOST_TEST(!refused([](transport::rpc::Plan& plan) { plan.stages[0].standbys = 1; }));
  BOOST_TEST(refused([](transport::rpc::Plan& plan) {
    plan.stages[0].devices.resize(2);
    plan.stages[0].standbys = 1;
  }));
  BOOST_TEST(!refused([](transport::rpc::Plan& plan) { plan.stages[1].devices.resize(4); }));
  BOOST_TEST(refused([](transport::rpc::Plan& plan) {
    plan.stages[0].devices.resize(3);
    plan.stages[1].devices.resize(2);  // which are of no use to three lanes
  }));
  BOOST_TEST(refused([](transport::rpc::Plan& plan) {
    plan.stages[0].devices.resize(64);
    plan.kv.num_blocks = 1 << 26;
  }));
}

}  // namespace
}  // namespace chainpump::actors
