// What differs between two graphs, and what that is for the ranks: over random pairs.
#include "graph/graph_change.h"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <random>
#include <set>

#include "graph/plan_change.h"
#include "graph/planner.h"

namespace chainpump::graph {
namespace {

ModelProfile small_model() {
  ModelProfile model;
  model.num_layers = 12;
  model.hidden_size = 64;
  model.num_heads = 4;
  model.num_kv_heads = 2;
  model.head_dim = 16;
  model.vocabulary_size = 1000;
  model.context_tokens = 2048;
  const auto weights = [](int64_t bytes) { return WeightBytes{bytes, {{DType::q8_0, bytes}}}; };
  model.embedding = weights(64'000);
  model.head = weights(64'000);
  model.layers.assign(12, weights(50'000));
  return model;
}

Graph parse(const std::string& text) { return parse_graph_text(text, "f").value(); }

std::vector<std::string> lines_of(const std::vector<KeyValue>& values) {
  std::vector<std::string> lines;
  for (const KeyValue& value : values) lines.push_back(value.key + "=" + value.value);
  return lines;
}

/// A value that is not the default; empty: the key is none that stands alone.
std::string other_value(const KeySpec& key) {
  switch (key.type) {
    case KeyType::text:
      return "\"an other/fi\\\"le\\\\.gguf\"";
    case KeyType::name:
      return "other";
    case KeyType::integer:
    case KeyType::bytes:
      return key.low == key.high ? "" : std::to_string(key.low + 7);
    case KeyType::duration:
      return "1234ms";
    case KeyType::boolean:
      return key.default_text == "true" ? "false" : "true";
    case KeyType::choice: {
      const auto choices = split_choices(key.choices);
      return choices.size() < 2 ? "" : std::string(choices[1]);
    }
    case KeyType::layers:
      return "0-11";
    case KeyType::device:
      return "\"cpu:1,3\"";
    case KeyType::names:
      return "[]";
    case KeyType::section:
    case KeyType::stages:
      break;
  }
  return "";
}

/// A file with this key alone; of a stage, with a stage of it.
std::string file_with(const KeySpec& key, const std::string& value) {
  const std::string path(key.path);
  if (path.starts_with("stages[].")) {
    const std::string name = path.substr(9);
    const std::string more = name == "module" || name == "trusted"
                                 ? ", op: torch, trusted: true, module: m"
                                 : std::string();
    if (name == "trusted") return "stages: [{name: a, op: torch, module: m, trusted: true}]";
    if (name == "module") return "stages: [{name: a, op: torch, trusted: true, module: other}]";
    if (name == "op") return "stages: [{name: a, op: encoder}]";
    if (name == "nodes") return "stages: [{name: a, nodes: [x, y]}]";
    if (name == "inputs") return "stages: [{name: a}, {name: b, inputs: [a]}]";
    return "stages: [{name: a" + more + ", " + name + ": " + value + "}]";
  }
  const size_t dot = path.find('.');
  if (dot == std::string::npos) return path + ": " + value;
  return path.substr(0, dot) + ": {" + path.substr(dot + 1) + ": " + value + "}";
}

BOOST_AUTO_TEST_CASE(EveryKeyIsSeenWhereItDiffers) {
  for (const KeySpec& key : graph_keys()) {
    const bool is_section = key.type == KeyType::section;
    BOOST_TEST(is_section == (key.change == KeyChange::section), key.path);
    if (is_section || key.path == "stages" || key.path == "stages[].name") continue;
    const std::string value = other_value(key);
    if (value.empty()) {
      BOOST_TEST((key.path == "version" || key.path == "partition"), key.path);
      continue;
    }
    const bool of_stage = key.path.starts_with("stages[].");
    const bool has_op = key.path == "stages[].module" || key.path == "stages[].trusted";
    const Graph plain = parse(key.path == "stages[].inputs" ? "stages: [{name: a}]"
                              : key.path == "stages[].module"
                                  ? "stages: [{name: a, op: torch, trusted: true, module: m}]"
                              : of_stage ? "stages: [{name: a}]"
                                         : "stages: 1");
    const Graph other = parse(file_with(key, value));
    const auto found = differences(plain, other);
    const auto named = std::find_if(found.begin(), found.end(), [&](const KeyDifference& each) {
      const size_t close = each.key.find(']');
      const std::string path =
          close == std::string::npos ? each.key : "stages[]" + each.key.substr(close + 1);
      return path == key.path;
    });
    BOOST_TEST((named != found.end()), key.path);
    if (named != found.end()) BOOST_TEST((named->change == key.change), key.path);
    if (!has_op && key.path != "stages[].inputs" && key.path != "stages[].op")
      BOOST_TEST(found.size() == 1u, key.path);
    BOOST_TEST(differences(other, other).empty());
    const bool stops = std::any_of(found.begin(), found.end(), [](const KeyDifference& each) {
      return each.change == KeyChange::restart;
    });
    BOOST_TEST(may_change(plain, other).ok() == !stops, key.path);
  }
}

using Random = std::mt19937_64;
int64_t pick(Random& random, std::initializer_list<int64_t> values) {
  return *(values.begin() + static_cast<ptrdiff_t>(random() % values.size()));
}

Graph random_graph(Random& random) {
  Graph graph;
  graph.model_path = "model \"1\"\t.gguf";
  graph.stages = decoder_chain(static_cast<int32_t>(pick(random, {1, 2, 3, 4})));
  const auto replicas = static_cast<int32_t>(pick(random, {1, 1, 2, 4}));
  const bool cut = random() % 2 == 0;
  int32_t next = 0;
  for (Stage& stage : graph.stages) {
    stage.replicas = static_cast<int32_t>(pick(random, {1, replicas}));
    stage.threads = static_cast<int32_t>(pick(random, {0, 1, 2}));
    if (random() % 8 == 0)
      stage.device = {.kind = DeviceRequest::Kind::cpu, .cores = {1}, .cuda_index = 0};
    if (stage.device.kind == DeviceRequest::Kind::cpu) stage.threads = 1;
    if (!cut) continue;
    const bool is_last = &stage == &graph.stages.back();
    const auto left = static_cast<int32_t>(&graph.stages.back() - &stage);
    const int32_t end =
        is_last
            ? 12
            : std::min<int32_t>(12 - left, next + static_cast<int32_t>(pick(random, {1, 2, 4})));
    stage.layers = LayerRange{next, end};
    next = end;
  }
  graph.threads = static_cast<int32_t>(pick(random, {0, 1}));
  graph.prefill_chunk = static_cast<int32_t>(pick(random, {0, 64, 256}));
  graph.max_sequences = static_cast<int32_t>(pick(random, {4, 32}));
  graph.context_tokens = static_cast<int32_t>(pick(random, {256, 512}));
  graph.kv_blocks = static_cast<int32_t>(pick(random, {0, 64, 100}));
  graph.prefix_cache = random() % 2 == 0;
  graph.credits = static_cast<int32_t>(pick(random, {2, 4}));
  graph.failover_restarts = static_cast<int32_t>(pick(random, {1, 5}));
  graph.failover_window_ms = static_cast<int32_t>(pick(random, {1000, 60000}));
  graph.failover_evicts_slow = random() % 2 == 0;
  if (random() % 2 == 0) graph.replay_log_bytes = pick(random, {0, 1 << 20});
  return graph;
}

BOOST_AUTO_TEST_CASE(AGraphIsTheSameAgainFromItsText) {
  Random random(1);
  for (int round = 0; round < 500; ++round) {
    Graph graph = random_graph(random);
    if (round % 8 == 0) graph.transport = TransportKind::loopback;  // in one process
    const Graph again = parse(to_yaml(graph));
    BOOST_TEST(lines_of(values_of(graph)) == lines_of(values_of(again)),
               boost::test_tools::per_element());
    BOOST_TEST(differences(graph, again).empty());
  }
}

/// Each layer that a rank has in the new plan, of each lane that there was, from one rank that has
/// it.
void check_routes(const Plan& now, const Plan& next) {
  std::set<std::tuple<uint32_t, uint8_t, int32_t>> got;
  for (const KvRoute& route : kv_routes(now, next)) {
    BOOST_REQUIRE(route.layer_begin < route.layer_end && !route.lanes.empty());
    for (const Plan* plan : {&now, &next}) {
      const RankId rank = plan == &now ? route.from : route.to;
      const StagePlan& stage = plan->stages[static_cast<size_t>(place_of(*plan, rank).stage.value)];
      BOOST_TEST((stage.layer_begin <= route.layer_begin && route.layer_end <= stage.layer_end));
      const std::vector<LaneId> served = lanes_of(*plan, rank);
      for (const LaneId lane : route.lanes)
        BOOST_TEST((std::find(served.begin(), served.end(), lane) != served.end()));
    }
    for (const LaneId lane : route.lanes)
      for (int32_t layer = route.layer_begin; layer < route.layer_end; ++layer)
        BOOST_TEST(got.emplace(route.to.value, lane.value, layer).second);
  }
  const int32_t lanes = std::min(num_lanes(now), num_lanes(next));
  BOOST_TEST(got.size() == static_cast<size_t>(lanes * next.stages.back().layer_end));
}

BOOST_AUTO_TEST_CASE(WhatRandomPairsOfGraphsTake) {
  Random random(2);
  const MachineProfile machine = nominal_machine(4, int64_t{8} << 30);
  int num_in_place = 0, num_moved = 0, num_refused = 0;
  for (int round = 0; round < 2000; ++round) {
    const Graph before = random_graph(random);
    Graph after = random() % 2 == 0 ? random_graph(random) : before;
    if (random() % 2 == 0) after.failover_window_ms = 2000;
    if (random() % 4 == 0) after.stages.front().threads = 1;
    const Result<Plan> now = make_plan(before, small_model(), machine, {});
    const Result<Plan> next =
        now.ok() ? make_plan(with_choices_of(*now, before, after), small_model(), machine, {})
                 : now;
    if (!now.ok() || !next.ok()) continue;
    const std::vector<KeyDifference> found = differences(before, after);
    const bool moves = std::any_of(found.begin(), found.end(), [](const KeyDifference& each) {
      return each.change != KeyChange::in_place;
    });
    // A difference that no rank would notice may be a key's; never the other way round.
    if (!moves) BOOST_TEST(!ranks_differ(*now, *next));
    const Status may = may_change(*now, *next);
    const bool shrinks =
        next->context_tokens < now->context_tokens || next->kv.num_blocks < now->kv.num_blocks;
    BOOST_TEST(may.ok() == !shrinks);
    if (!may.ok()) {
      BOOST_TEST((may.error().code == ErrorCode::invalid_argument));
      BOOST_TEST(may.error().message.find("kv.") != std::string::npos);
    }
    check_routes(*now, *next);
    ++(shrinks ? num_refused : ranks_differ(*now, *next) ? num_moved : num_in_place);
  }
  BOOST_TEST_MESSAGE(num_in_place << " in place, " << num_moved << " moved, " << num_refused);
  BOOST_TEST((num_in_place > 50 && num_moved > 50 && num_refused > 50));
}

BOOST_AUTO_TEST_CASE(WhatStandsAgainstAChangeIsNamed) {
  const auto refused = [](const std::string& now, const std::string& next) {
    const Status may = may_change(parse(now), parse(next));
    return may.ok() ? std::string() : may.error().message;
  };
  for (const auto& [text, key] :
       {std::pair("kv: {type: int8}", "kv.type"), std::pair("activations: f32", "activations"),
        std::pair("model: other.gguf", "model"), std::pair("name: other", "name")})
    BOOST_TEST(refused("stages: 2", text).starts_with(key), key);
  BOOST_TEST(refused("stages: 2", "stages: 3").empty());
  const MachineProfile machine = nominal_machine(4, int64_t{8} << 30);
  const auto plan = [&](const std::string& text) {
    return make_plan(parse(text), small_model(), machine, {.model_path = "m"}).value();
  };
  const Plan now = plan("kv: {context: 512}");
  const auto message = [&](const Plan& next) { return may_change(now, next).error().message; };
  BOOST_TEST(message(plan("kv: {context: 256, blocks: 200}")).starts_with("kv.context"));
  BOOST_TEST(message(plan("kv: {context: 512, blocks: 20}")).find("kv.blocks") !=
             std::string::npos);
  BOOST_TEST(message(plan("{kv: {context: 512}, failover: {restarts: 0}}"))
                 .starts_with("failover.restarts"));
  BOOST_TEST(bytes_of(plan("{stages: 2, kv: {context: 512}}")) > bytes_of(now));
}

}  // namespace
}  // namespace chainpump::graph
