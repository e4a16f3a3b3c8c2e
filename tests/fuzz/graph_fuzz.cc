// Any bytes as a graph file: parsed, and planned for a small model if they are one.
#include <cstddef>
#include <cstdint>

#include "graph/planner.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace chainpump;
  const auto graph =
      graph::parse_graph_text({reinterpret_cast<const char*>(data), size}, "fuzz.yaml");
  if (!graph.ok()) {
    CHECK(!graph.error().message.empty());
    return 0;
  }
  graph::ModelProfile model;
  model.num_layers = 4;
  model.hidden_size = 64;
  model.num_heads = 2;
  model.num_kv_heads = 1;
  model.head_dim = 32;
  model.vocabulary_size = 100;
  model.context_tokens = 4096;
  model.embedding = model.head = {6400, {{DType::f32, 6400}}};
  model.layers.assign(4, {65536, {{DType::f32, 65536}}});
  const auto plan =
      graph::make_plan(*graph, model, graph::nominal_machine(2, int64_t{1} << 30), {});
  if (plan.ok()) CHECK_EQ(plan->edges.size(), plan->stages.size());
  return 0;
}
