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

// Of stages with fewer replicas than there are lanes each rank has its lanes' shares of blocks and
// slots, and its weights once.
BOOST_AUTO_TEST_CASE(RanksInSeveralLanesHaveTheSharesOfAll) {
  const auto report = [](int first, int middle, int last) {
    const std::string text = fmt::format(
        "kv: {{blocks: 40, context: 1024}}\nfailover: {{restarts: 1}}\n"
        "stages: [{{layers: 0-9, replicas: {}}}, {{layers: 10-19, replicas: {}}}, {{layers: 20-29, "
        "replicas: {}}}]",
        first, middle, last);
    return make_plan_report(parse(text), small_model(), nominal_machine(8, int64_t{16} << 30), {})
        .value();
  };
  const PlanReport one = report(1, 1, 1);
  const int kTable[][4] = {{4, 2, 1, 4}, {1, 2, 4, 4}, {2, 2, 2, 2}, {1, 3, 1, 3}, {6, 1, 3, 6}};
  for (const auto& [first, middle, last, lanes] : kTable) {
    const PlanReport shared = report(first, middle, last);
    const int replicas[] = {first, middle, last};
    BOOST_TEST(num_lanes(shared.plan) == lanes);
    BOOST_TEST(num_ranks(shared.plan) == first + middle + last);
    BOOST_TEST(lanes_per_rank_max(shared.plan) ==
               lanes / *std::min_element(std::begin(replicas), std::end(replicas)));
    BOOST_TEST(shared.plan.kv.num_blocks == one.plan.kv.num_blocks);
    // All positions of every lane may be logged by each stage but the last.
    const int64_t lane_log = int64_t{shared.plan.kv.num_blocks} * 32 * 576 * 4;
    BOOST_TEST(shared.plan.replay_log_bytes == lane_log * lanes_per_rank_max(shared.plan));
    int64_t needed = 2 * lanes * lane_log;
    for (size_t i = 0; i < 3; ++i) {
      const StagePlan& stage = shared.plan.stages[i];
      const StagePlan& alone = one.plan.stages[i];
      const StageIndex index(static_cast<int32_t>(i));
      BOOST_TEST(num_replicas(shared.plan, index) == replicas[i]);
      BOOST_TEST(lanes_per_rank(shared.plan, index) == lanes / replicas[i]);
      // What the ranks of a stage have adds up to what its lanes have.
      BOOST_TEST(stage.kv_bytes * replicas[i] == alone.kv_bytes * lanes);
      BOOST_TEST(stage.slot_bytes * replicas[i] == alone.slot_bytes * lanes);
      BOOST_TEST(stage.weight_bytes == alone.weight_bytes);
      needed += replicas[i] *
                (stage.weight_bytes + stage.slot_bytes + stage.kv_bytes + (int64_t{16} << 20));
    }
    BOOST_TEST(shared.verdict.needed_bytes == needed);
  }
}

BOOST_AUTO_TEST_CASE(CountsWhatRepairsTake) {
  const auto report = [](std::string_view text) {
    return make_plan_report(parse(text), small_model(), kMachine, {}).value();
  };
  const std::string_view base = "kv: {blocks: 512}\nstages: ";
  const auto with = [&](std::string_view rest) { return report(fmt::format("{}{}", base, rest)); };
  const PlanReport plain = with("[{}, {}, {}]\nreplay_log: 0");
  BOOST_TEST(plain.plan.failover_restarts == 5);
  BOOST_TEST((plain.plan.failover_window == std::chrono::seconds(60)));
  BOOST_TEST(num_processes(plain.plan) == 3);
  // Weights and KV blocks of its own.
  const PlanReport standbys = with("[{}, {standbys: 2}, {}]\nreplay_log: 0");
  const StagePlan& stage = standbys.plan.stages[1];
  BOOST_TEST(stage.standbys == 2);
  BOOST_TEST(num_ranks(standbys.plan) == 3);
  BOOST_TEST(num_processes(standbys.plan) == 5);
  BOOST_TEST(standbys.verdict.needed_bytes - plain.verdict.needed_bytes ==
             2 * (stage.weight_bytes + stage.kv_bytes + (int64_t{16} << 20)));
  // A machine without room for them plans a smaller cache, or says that it does not fit.
  const auto tight = make_plan_report(parse("stages: [{}, {standbys: 4}]"), small_model(),
                                      nominal_machine(2, int64_t{1} << 30), {});
  BOOST_TEST(tight->verdict.fits);
  BOOST_TEST(tight->plan.kv.num_blocks < 512);
  const auto none = make_plan(parse("stages: [{}, {standbys: 4}]\nkv: {blocks: 512}"),
                              small_model(), nominal_machine(2, int64_t{1} << 30), {});
  BOOST_TEST_REQUIRE(!none.ok());
  BOOST_TEST((none.error().code == ErrorCode::no_room));

  const int64_t all = int64_t{512} * 32 * 576 * 4;
  const struct {
    std::string_view text;
    int64_t log;
    int64_t ranks;
  } kTable[] = {{"[{}, {}, {}]\nfailover: {restarts: 1}", all, 2},
                {"[{}, {}, {}]\nreplay_log: auto\nfailover: {restarts: 1}", all, 2},
                {"[{}, {}, {}]\nreplay_log: 1MiB", 1 << 20, 2},
                {"[{}, {}, {}]\nreplay_log: 1024TiB", all, 2},  // never more than there can be
                {"[{}, {}, {}]", all, 2},
                {"[{}, {}, {}]\nfailover: {restarts: 0}", 0, 2},
                {"[{}]", 0, 0}};
  for (const auto& [text, log, ranks] : kTable) {
    const PlanReport logs = with(text);
    BOOST_TEST(logs.plan.replay_log_bytes == log);
    if (ranks > 0)
      BOOST_TEST(logs.verdict.needed_bytes - plain.verdict.needed_bytes == ranks * log);
  }
  // auto: 256 MiB at most.
  const PlanReport large = report("kv: {blocks: 8192}\nstages: 2\nfailover: {restarts: 1}");
  BOOST_TEST(large.plan.replay_log_bytes == int64_t{256} << 20);
  const PlanReport other = report("failover: {restarts: 2, window: 1500ms, slow: evict}");
  BOOST_TEST(other.plan.failover_restarts == 2);
  BOOST_TEST((other.plan.failover_evicts_slow && !large.plan.failover_evicts_slow));
  BOOST_TEST((other.plan.failover_window == std::chrono::milliseconds(1500)));
}

BOOST_AUTO_TEST_CASE(EveryRankServesAsManyLanesAndNoneTwice) {
  const std::vector<size_t> kReplicas[] = {{1, 2, 4}, {4, 1, 2}, {3, 3}, {6, 2, 3}, {1}, {1, 8, 1}};
  for (const std::vector<size_t>& replicas : kReplicas) {
    Plan plan;
    plan.kv.num_blocks = 10;
    for (const size_t count : replicas) plan.stages.emplace_back().devices.resize(count);
    for (size_t i = 0; i < replicas.size(); ++i) {
      const StageIndex stage(static_cast<int32_t>(i));
      std::vector<int> times(static_cast<size_t>(num_ranks(plan)));
      std::vector<KvBlockId> blocks;  // where each lane's begin
      for (int lane = 0; lane < num_lanes(plan); ++lane) {
        const LaneId id(static_cast<uint8_t>(lane));
        const RankId rank = rank_at(plan, id, stage);
        BOOST_TEST(
            (place_of(plan, rank) == RankPlace{stage, lane % static_cast<int>(replicas[i])}));
        const std::vector<LaneId> lanes = lanes_of(plan, rank);
        const auto among =
            static_cast<int>(std::find(lanes.begin(), lanes.end(), id) - lanes.begin());
        BOOST_TEST(among < static_cast<int>(lanes.size()));
        BOOST_TEST(first_kv_block(plan, id, stage).value == 10 * among);
        ++times[rank.value];
      }
      for (size_t rank = 0; rank < times.size(); ++rank)
        BOOST_TEST(times[rank] ==
                   (place_of(plan, RankId(static_cast<uint32_t>(rank))).stage == stage
                        ? lanes_per_rank(plan, stage)
                        : 0));
    }
  }
}

// Half as many ranks must do with half as many layers each to be as fast.
BOOST_AUTO_TEST_CASE(CutsWeighTheLanesThatARankServes) {
  const Plan plan = make_plan(parse("threads: 1\nstages: [{replicas: 1}, {replicas: 3}, {}]"),
                              small_model(), nominal_machine(8, int64_t{16} << 30), {})
                        .value();
  const auto layers = [&](size_t i) {
    return plan.stages[i].layer_end - plan.stages[i].layer_begin;
  };
  BOOST_TEST(layers(1) >= 2 * layers(0));
  BOOST_TEST(layers(1) > 15);
}

BOOST_AUTO_TEST_CASE(RanksAreNumberedReplicaByReplica) {
  Plan plan;
  plan.stages.resize(3);
  for (StagePlan& stage : plan.stages) stage.devices.resize(2);
  plan.stages[1].name = "middle";
  plan.edges.resize(3);
  const RankId rank = rank_at(plan, LaneId(1), StageIndex(1));
  BOOST_TEST(rank.value == 4u);
  BOOST_TEST((place_of(plan, rank) == RankPlace{StageIndex(1), 1}));
  BOOST_TEST(link_of(plan, LaneId(1), EdgeId(2)).value == 5u);
  BOOST_TEST(rank_name(plan, rank) == "stage 'middle' of lane 1");
  plan.stages[0].devices.resize(4);
  plan.stages[2].devices.resize(1);
  // 0.0 1.0 2.0, 0.1 1.1, 0.2, 0.3
  BOOST_TEST(rank_at(plan, LaneId(3), StageIndex(0)).value == 6u);
  BOOST_TEST(rank_at(plan, LaneId(3), StageIndex(1)).value == 4u);
  BOOST_TEST(rank_at(plan, LaneId(3), StageIndex(2)).value == 2u);
  BOOST_TEST(rank_name(plan, RankId(4)) == "stage 'middle' of lanes 1 and 3");
  BOOST_TEST(lanes_text(lanes_of(plan, RankId(2))) == "lanes 0 to 3");
  for (StagePlan& stage : plan.stages) stage.devices.resize(1);
  BOOST_TEST(rank_name(plan, RankId(1)) == "stage 'middle'");
}

BOOST_AUTO_TEST_CASE(RefusalsAreTyped) {
  const ModelProfile model = small_model();
  const std::tuple<std::string, ErrorCode, std::string> kTable[] = {
      {"stages: [{op: encoder}]", ErrorCode::unimplemented, "op encoder"},
      {"stages: [{device: 'cuda:0'}]", ErrorCode::unimplemented, "cuda:0"},
      {"stages: [{name: a, replicas: 6}, {name: b, replicas: 4}]", ErrorCode::invalid_argument,
       "stage 'b' (1:34): replicas: 4 cannot share the 6 lanes that stage 'a' makes evenly; 3 or 6 "
       "can"},
      {"stages: [{replicas: 5}, {replicas: 7}]", ErrorCode::invalid_argument, "1 or 7 can"},
      {"stages: [{replicas: 2, standbys: 1}]", ErrorCode::unimplemented,
       "stage 'stage0' (1:10): standbys of a stage with replicas: 2 cannot be run yet"},
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
