// Where the ranks of a graph have their homes: by name, by label, or by share; and what of it does
// not fit.
#include "graph/placement.h"

#include <boost/test/unit_test.hpp>

#include "graph/planner.h"
#include "tests/fakes/why.h"

namespace chainpump::graph {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

Graph parse(std::string_view text) { return parse_graph_text(text, "f").value(); }

Node node(const char* name, int cores, std::vector<std::string> labels = {},
          int64_t memory = 8 * kGiB) {
  return {name, std::move(labels), nominal_machine(cores, memory)};
}
const std::vector<Node> kThree = {node("a", 2), node("b", 2, {"fast", "disk"}),
                                  node("c", 2, {"fast"})};

ModelProfile model_of(int32_t num_layers, int64_t layer_bytes) {
  ModelProfile model;
  model.num_layers = num_layers;
  model.hidden_size = 64;
  model.num_heads = model.num_kv_heads = 1;
  model.head_dim = 64;
  model.vocabulary_size = 1000;
  model.context_tokens = 512;
  model.layers.assign(static_cast<size_t>(num_layers),
                      WeightBytes{layer_bytes, {{DType::q4_1, layer_bytes}}});
  return model;
}

std::string homes(const Plan& plan) {
  std::string text;
  for (int32_t i = 0; i < num_processes(plan); ++i)
    text += nodes_of(plan, ProcessId(static_cast<uint32_t>(i))).front();
  return text;
}

BOOST_AUTO_TEST_SUITE(placement)

// The homes of all processes, ranks before standbys.
BOOST_AUTO_TEST_CASE(stages_are_where_they_are_asked_to_be) {
  const std::tuple<const char*, const char*> kTable[] = {
      {"stages: [{nodes: [a]}, {nodes: [b]}, {nodes: [c]}]", "abc"},
      {"stages: [{nodes: [c, a]}, {nodes: [b]}]", "cb"},
      {"stages: [{nodes: [fast]}, {nodes: [disk]}]", "bb"},
      {"stages: [{nodes: [fast], replicas: 2}, {nodes: [c, fast], replicas: 2}]", "bccb"},
      {"stages: [{nodes: [a, b, c], standbys: 3}]", "abca"},
      {"stages: [{nodes: [a], standbys: 1}]", "aa"},
      {"stages: 3", "abc"},
      {"stages: 6", "aabbcc"},
      {"stages: 1", "b"},
      {"stages: [{}, {standbys: 1}, {}]", "abcc"},
  };
  for (const auto& [text, expected] : kTable) {
    const Result<Plan> plan = make_plan(parse(text), model_of(12, 1000), kThree, {});
    BOOST_REQUIRE_MESSAGE(plan.ok(), text << ": " << fakes::why(plan));
    BOOST_TEST(homes(*plan) == expected, text << ": " << homes(*plan));
    BOOST_TEST(plan->stages[0].devices[0].node == homes(*plan).substr(0, 1));
  }
}

BOOST_AUTO_TEST_CASE(a_process_has_all_its_stages_nodes_to_fall_back_on) {
  const Plan plan = make_plan(parse("stages: [{nodes: [b, a], standbys: 1}, {nodes: [c]}]"),
                              model_of(12, 1000), kThree, {})
                        .value();
  const auto nodes = [&](uint32_t process) {
    return fmt::format("{}", fmt::join(nodes_of(plan, ProcessId(process)), ""));
  };
  BOOST_TEST(nodes(0) == "ba");
  BOOST_TEST(nodes(1) == "c");
  BOOST_TEST(nodes(2) == "ab");
  BOOST_TEST(spans_nodes(plan));
  BOOST_TEST(!spans_nodes(
      make_plan(parse("stages: [{nodes: [b]}, {nodes: [b]}]"), model_of(12, 1000), kThree, {})
          .value()));
}

// Each node's cores are for its own ranks alone, and faster nodes get more of the chain.
BOOST_AUTO_TEST_CASE(cores_and_cuts_are_each_nodes_own) {
  const std::vector<Node> nodes = {node("a", 2), node("b", 6)};
  const Plan plan = make_plan(parse("stages: [{nodes: [a]}, {nodes: [b]}, {nodes: [b]}]"),
                              model_of(28, 1'000'000), nodes, {})
                        .value();
  BOOST_TEST(plan.stages[0].num_threads == 2);
  BOOST_TEST(plan.stages[1].num_threads == 3);
  BOOST_TEST((plan.stages[0].devices[0].cores == std::vector<int>{0, 1}));
  BOOST_TEST((plan.stages[1].devices[0].cores == std::vector<int>{0, 1, 2}));
  BOOST_TEST((plan.stages[2].devices[0].cores == std::vector<int>{3, 4, 5}));
  const auto layers = [&](size_t i) {
    return plan.stages[i].layer_end - plan.stages[i].layer_begin;
  };
  BOOST_TEST(layers(0) < layers(1));
  BOOST_TEST(homes(make_plan(parse("stages: 4"), model_of(28, 1000), nodes, {}).value()) == "abbb");
}

BOOST_AUTO_TEST_CASE(what_does_not_fit_or_is_not_there_is_named) {
  const std::vector<Node> small = {node("a", 2), node("b", 2, {}, kGiB / 4)};
  const Graph graph = parse("stages: [{nodes: [a]}, {nodes: [b]}]");
  BOOST_TEST(make_plan(graph, model_of(2, kGiB / 8), small, {}).ok());
  const Result<Plan> full = make_plan(graph, model_of(2, kGiB), small, {});
  BOOST_REQUIRE(!full.ok());
  BOOST_TEST((full.error().code == ErrorCode::no_room));
  BOOST_TEST(full.error().message.find("does not fit on node 'b'") == 0u, full.error().message);
  const Result<Plan> nowhere =
      make_plan(parse("stages: [{name: x, nodes: [d, e]}]"), model_of(2, 1000), kThree, {});
  BOOST_TEST((nowhere.error().code == ErrorCode::not_found));
  BOOST_TEST(
      nowhere.error().message.find("stage 'x' (1:10): no node is named or labelled d or e") == 0u,
      nowhere.error().message);
  BOOST_TEST((missing_nodes(parse("stages: [{nodes: [d, a, fast]}, {nodes: [d, e]}]"), kThree) ==
              std::vector<std::string>{"d", "e"}));
  const Result<Plan> one = make_plan(graph, model_of(2, 1000), nominal_machine(2, kGiB), {});
  BOOST_TEST((one.error().code == ErrorCode::unimplemented));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::graph
