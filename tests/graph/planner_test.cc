#include "graph/planner.h"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <functional>
#include <random>

#include "graph/partition.h"

namespace chainpump::graph {
namespace {

ModelProfile small_model() {
  ModelProfile model;
  model.num_layers = 30;
  model.hidden_size = 576;
  model.num_heads = 9;
  model.num_kv_heads = 3;
  model.head_dim = 64;
  model.vocabulary_size = 49152;
  model.context_tokens = 2048;
  model.tied_head = true;
  const auto weights = [](DType type, int64_t bytes) {
    return WeightBytes{bytes, {{type, bytes}}};
  };
  model.embedding = weights(DType::q8_0, 30'000'000);
  model.head = weights(DType::q8_0, 30'000'000);
  model.layers.assign(30, weights(DType::q4_1, 2'200'000));
  return model;
}

Graph parse(std::string_view text) { return parse_graph_text(text, "f").value(); }
const MachineProfile kMachine = nominal_machine(2, int64_t{8} << 30);

BOOST_AUTO_TEST_CASE(PartitionIsOptimal) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> seconds(0.1, 5);
  for (int round = 0; round < 200; ++round) {
    const int layers = 1 + static_cast<int>(random() % 9);
    const int stages = 1 + static_cast<int>(random() % static_cast<unsigned>(layers));
    ChainCosts costs;
    for (int s = 0; s < stages; ++s) {
      costs.fixed_s.push_back(s == 0 || s + 1 == stages ? seconds(random) : 0);
      auto& row = costs.layer_s.emplace_back();
      for (int i = 0; i < layers; ++i) row.push_back(seconds(random));
    }
    const auto stage_s = [&](int s, int begin, int end) {
      double sum = costs.fixed_s[static_cast<size_t>(s)];
      for (int i = begin; i < end; ++i)
        sum += costs.layer_s[static_cast<size_t>(s)][static_cast<size_t>(i)];
      return sum;
    };
    const std::function<double(int, int)> best = [&](int s, int begin) -> double {
      if (s + 1 == stages) return stage_s(s, begin, layers);
      double least = 1e300;
      for (int end = begin + 1; end <= layers - (stages - s - 1); ++end)
        least = std::min(least, std::max(stage_s(s, begin, end), best(s + 1, end)));
      return least;
    };
    const auto ends = partition_chain(costs);
    BOOST_REQUIRE(ends.size() == static_cast<size_t>(stages));
    BOOST_TEST(ends.back() == layers);
    double worst = 0;
    for (int s = 0, begin = 0; s < stages; begin = ends[static_cast<size_t>(s++)])
      worst = std::max(worst, stage_s(s, begin, ends[static_cast<size_t>(s)]));
    BOOST_TEST(worst <= best(0, 0) * (1 + 1e-9));
  }
}

// The head reads 30 MB for a token but nothing for most of a prompt: the last stage must hold
// fewer layers than the others, and yet some.
BOOST_AUTO_TEST_CASE(CutsBalanceTheMixOfPromptAndGeneration) {
  const Graph graph = parse("threads: 1\nbatching: {max_sequences: 1, prefill_chunk: 256}\n");
  for (const int stages : {2, 3, 5}) {
    const auto made = make_plan(graph, small_model(), kMachine, {.stages = stages});
    BOOST_REQUIRE(made.ok());
    double worst = 0, sum = 0, layer = 0;
    for (const StagePlan& stage : made->stages) {
      const double mix = stage.predicted_decode_s + 4 * stage.predicted_prefill_s / 256;
      worst = std::max(worst, mix);
      sum += mix;
      const int32_t num_layers = stage.layer_end - stage.layer_begin;
      if (!stage.has_head) {
        BOOST_TEST(num_layers > made->stages.back().layer_end - made->stages.back().layer_begin);
        layer = mix / num_layers;
      }
    }
    // Within a layer of even; with five stages the head and its one layer are more than their
    // share.
    const StagePlan& last = made->stages.back();
    const double head_stage = last.predicted_decode_s + 4 * last.predicted_prefill_s / 256;
    BOOST_TEST(worst <= (stages == 5 ? head_stage : sum / stages + layer));
    if (stages == 5) BOOST_TEST(last.layer_end - last.layer_begin == 1);
  }
  const auto three = make_plan(graph, small_model(), kMachine, {.stages = 3});
  BOOST_TEST(three->stages[2].layer_end - three->stages[2].layer_begin >= 4);
}

BOOST_AUTO_TEST_CASE(BytesAddUp) {
  for (const int stages : {1, 2, 3, 30}) {
    const ModelProfile model = small_model();
    const auto made = make_plan(parse("model: m\n"), model, kMachine, {.stages = stages});
    BOOST_REQUIRE(made.ok());
    const Plan& plan = *made;
    BOOST_TEST(plan.context_tokens == 2048);
    BOOST_TEST(plan.kv.num_blocks == 8 * 64);
    BOOST_TEST(plan.edges.size() == static_cast<size_t>(stages));
    int64_t weights = 0, kv = 0;
    int32_t next = 0;
    for (const StagePlan& stage : plan.stages) {
      BOOST_TEST(stage.layer_begin == next);
      BOOST_TEST(stage.layer_end > stage.layer_begin);
      next = stage.layer_end;
      weights += stage.weight_bytes;
      kv += stage.kv_bytes;
      BOOST_TEST(stage.predicted_decode_s > 0);
    }
    BOOST_TEST(next == 30);
    BOOST_TEST(weights == 30 * 2'200'000 + (stages == 1 ? 1 : 2) * 30'000'000);
    BOOST_TEST(kv == int64_t{512} * 32 * 2 * 4 * 3 * 64 * 30);
    const EdgePlan& back = plan.edges.back();
    BOOST_TEST(back.is_return);
    BOOST_TEST(back.credits >= plan.max_microbatches);
    BOOST_TEST((back.transport == (stages == 1 ? TransportKind::loopback : TransportKind::tcp)));
    BOOST_TEST((back.spin == (stages > 2 ? SpinPolicy::never : SpinPolicy::automatic)));
  }
}

// Many sequences must not cost much more than a few: slots and the default cache are made for eight
// of the longest, and a budget is used as given.
BOOST_AUTO_TEST_CASE(ManySequencesTakeLittleMore) {
  const auto plan_of = [](const std::string& text) {
    return make_plan(parse(text), small_model(), kMachine, {.stages = 3}).value();
  };
  const Plan few = plan_of("batching: {max_sequences: 8}\n");
  const Plan many = plan_of("batching: {max_sequences: 256}\n");
  BOOST_TEST(many.kv.num_blocks == few.kv.num_blocks);
  BOOST_TEST(many.edges[0].slot_metadata_bytes < few.edges[0].slot_metadata_bytes * 5 / 4);
  BOOST_TEST(plan_of("kv: {budget: 2GiB}\n").kv.num_blocks > few.kv.num_blocks);
}

BOOST_AUTO_TEST_CASE(Verdicts) {
  const ModelProfile model = small_model();
  const auto small =
      make_plan_report(parse("kv: {budget: 10MiB, context: 2048}\n"), model, kMachine, {});
  BOOST_REQUIRE(small.ok());
  BOOST_TEST(!small->verdict.fits);
  // 10 MiB hold 7 blocks of 32 tokens over 30 layers.
  BOOST_TEST(small->verdict.largest_context_tokens == 7 * 32);
  const auto refused = make_plan(parse("limits: {memory: 50MiB}\n"), model, kMachine, {});
  BOOST_REQUIRE(!refused.ok());
  BOOST_TEST((refused.error().code == ErrorCode::no_room));
  BOOST_TEST(make_plan(parse("kv: {budget: 10MiB, context: 224}\n"), model, kMachine, {}).ok());
}

// Each lane is what the plan without replicas has, and takes as much again.
BOOST_AUTO_TEST_CASE(ReplicasMakeLanes) {
  const auto report = [](std::string_view text, int cores) {
    return make_plan_report(parse(text), small_model(), nominal_machine(cores, int64_t{8} << 30),
                            {})
        .value();
  };
  const PlanReport one = report("stages: [{}, {}]", 4);
  const PlanReport two = report("stages: [{replicas: 2}, {replicas: 2}]", 8);
  BOOST_TEST(num_lanes(one.plan) == 1);
  BOOST_TEST(num_lanes(two.plan) == 2);
  BOOST_TEST(num_ranks(two.plan) == 4);
  BOOST_TEST(two.verdict.needed_bytes == 2 * one.verdict.needed_bytes);
  BOOST_TEST(two.plan.kv.num_blocks == one.plan.kv.num_blocks);
  BOOST_TEST(two.plan.edges.size() == 2u);
  for (size_t i = 0; i < 2; ++i) {
    BOOST_TEST(two.plan.stages[i].layer_end == one.plan.stages[i].layer_end);
    BOOST_TEST(two.plan.stages[i].kv_bytes == one.plan.stages[i].kv_bytes);
    BOOST_TEST(two.plan.stages[i].num_threads == 2);
  }
  const auto cores = [](const PlanReport& of, size_t stage, size_t lane) {
    return of.plan.stages[stage].devices[lane].cores;
  };
  BOOST_TEST((cores(two, 0, 0) == std::vector{0, 1}));
  BOOST_TEST((cores(two, 1, 0) == std::vector{2, 3}));
  BOOST_TEST((cores(two, 1, 1) == std::vector{6, 7}));
  // A budget is for all lanes.
  const PlanReport half = report("stages: [{replicas: 2}, {replicas: 2}]\nkv: {budget: 64MiB}", 8);
  const PlanReport all = report("stages: [{}, {}]\nkv: {budget: 64MiB}", 4);
  BOOST_TEST(half.plan.kv.num_blocks == all.plan.kv.num_blocks / 2);
}

// A stage's own cores are its replicas'; too few of them are shared.
BOOST_AUTO_TEST_CASE(ReplicasShareTheirStagesCores) {
  const auto devices = [](std::string_view cores) {
    const std::string text = fmt::format("stages: [{{replicas: 2, device: 'cpu:{}'}}]", cores);
    return make_plan_report(parse(text), small_model(), nominal_machine(4, int64_t{8} << 30), {})
        .value()
        .plan;
  };
  const Plan apart = devices("0-3");
  BOOST_TEST((apart.stages[0].devices[0].cores == std::vector{0, 1}));
  BOOST_TEST((apart.stages[0].devices[1].cores == std::vector{2, 3}));
  BOOST_TEST((apart.edges[0].spin == SpinPolicy::automatic));
  const Plan shared = devices("2");
  BOOST_TEST(shared.stages[0].num_threads == 1);
  BOOST_TEST((shared.stages[0].devices[0].cores == std::vector{2}));
  BOOST_TEST((shared.stages[0].devices[1].cores == std::vector{2}));
  BOOST_TEST((shared.edges[0].spin == SpinPolicy::never));
}

BOOST_AUTO_TEST_CASE(RanksAreNumberedLaneByLane) {
  Plan plan;
  plan.stages.resize(3);
  for (StagePlan& stage : plan.stages) stage.devices.resize(2);
  plan.stages[1].name = "middle";
  plan.edges.resize(3);
  const RankId rank = rank_at(plan, LaneId(1), StageIndex(1));
  BOOST_TEST(rank.value == 4u);
  BOOST_TEST((lane_of(plan, rank) == LaneId(1)));
  BOOST_TEST((stage_of(plan, rank) == StageIndex(1)));
  BOOST_TEST(link_of(plan, LaneId(1), EdgeId(2)).value == 5u);
  BOOST_TEST(rank_name(plan, rank) == "stage 'middle' of lane 1");
  for (StagePlan& stage : plan.stages) stage.devices.resize(1);
  BOOST_TEST(rank_name(plan, RankId(1)) == "stage 'middle'");
}

BOOST_AUTO_TEST_CASE(RefusalsAreTyped) {
  const ModelProfile model = small_model();
  const std::tuple<std::string, ErrorCode, std::string> kTable[] = {
      {"stages: [{op: encoder}]", ErrorCode::unimplemented, "op encoder"},
      {"stages: [{device: 'cuda:0'}]", ErrorCode::unimplemented, "cuda:0"},
      {"stages: [{name: a, replicas: 2}, {}]", ErrorCode::unimplemented,
       "replicas: 1 beside 2 of stage 'a'"},
      {"stages: [{standbys: 1}]", ErrorCode::unimplemented, "standbys: 1"},
      {"links: {wire: bf16}", ErrorCode::unimplemented, "links.wire"},
      {"stages: 31", ErrorCode::invalid_argument, "the model has 30 layers"},
      {"stages: [{layers: 0-9}]", ErrorCode::invalid_argument,
       "last layer is 9, but the model's last is 29"},
      {"kv: {context: 4096}", ErrorCode::invalid_argument, "was made for 2048"},
      {"stages: [{device: 'cpu:7'}]", ErrorCode::invalid_argument, "core 7"},
      {"stages: 3\nlinks: {spin: always}", ErrorCode::invalid_argument, "spin: always"},
  };
  for (const auto& [text, code, words] : kTable) {
    const auto plan = make_plan(parse(text), model, kMachine, {});
    BOOST_REQUIRE_MESSAGE(!plan.ok(), text);
    BOOST_TEST((plan.error().code == code), text);
    BOOST_TEST(plan.error().message.find(words) != std::string::npos, plan.error().message);
  }
}

}  // namespace
}  // namespace chainpump::graph
