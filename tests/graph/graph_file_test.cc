#include <boost/test/unit_test.hpp>

#include "graph/demo_graph.h"
#include "graph/graph.h"

namespace chainpump::graph {
namespace {

std::string errors_of(std::string_view text) {
  const auto graph = parse_graph_text(text, "f");
  return graph.ok() ? "" : graph.error().message;
}

BOOST_AUTO_TEST_CASE(MinimalAndDefaults) {
  const auto graph = parse_graph_text("version: 1\nmodel: a.gguf\nstages: 3\n", "f");
  BOOST_REQUIRE_MESSAGE(graph.ok(), errors_of("version: 1\nmodel: a.gguf\nstages: 3\n"));
  BOOST_TEST(graph->stages.size() == 3u);
  BOOST_TEST((graph->stages[2].inputs == std::vector<int32_t>{1}));
  BOOST_TEST(static_cast<int>(graph->stages[2].output_port.type) ==
             static_cast<int>(PortType::tokens));
  BOOST_TEST(graph->max_sequences == 32);
  BOOST_TEST(graph->prefill_chunk == 256);
  BOOST_TEST(graph->prefix_cache);
  BOOST_TEST(parse_graph_text(kDemoGraph, "demo").ok());
}

BOOST_AUTO_TEST_CASE(EachErrorHasItsPlace) {
  const std::pair<std::string, std::string> kTable[] = {
      {"stagse: 3\n", "f:1:1: unknown key 'stagse' in the file, did you mean 'stages'?"},
      {"name: a\nname: b\n", "f:2:1: duplicate key 'name' (first on line 1)"},
      {"kv: {typ: f32}\n", "f:1:6: unknown key 'typ' in kv, did you mean 'type'?"},
      {"kv:\n  type: f23\n",
       "f:2:9: kv.type is 'f23', must be one of f32, bf16, f16, int8, did you mean 'f32'?"},
      {"threads: -1\n", "f:1:10: threads is '-1', must be an integer in [1, 1024] or auto"},
      {"threads: .nan\n", "f:1:10: threads is '.nan', must be an integer in [1, 1024] or auto"},
      {"threads: 1e309\n", "f:1:10: threads is '1e309', must be an integer in [1, 1024] or auto"},
      {"threads: 99999999999999999999\n",
       "f:1:10: threads is '99999999999999999999', must be an integer in [1, 1024] or auto"},
      {"stages: 1000000\n",
       "f:1:9: stages is '1000000', must be an integer in [1, 1024] or a list"},
      {"stages:\n  - {name: a, inputs: [b]}\n  - {name: b, inputs: [a]}\n",
       "f:2:5: the stages form a cycle: a -> b -> a"},
      {"stages:\n  - {inputs: [x]}\n", "f:2:15: no stage is named 'x'"},
      {"stages: [{layers: 0-4}, {layers: 6-9}]\n",
       "f:1:25: stage 'stage1' begins with layer 6, must begin with 5, the one after stage "
       "'stage0'"},
      {"stages: [{layers: 1-4}]\n",
       "f:1:10: stage 'stage0' begins with layer 1, must begin with 0"},
      {"stages: [{layers: 4-0}]\n",
       "f:1:19: stages[].layers is '4-0', must be FIRST-LAST, both included (0-9 is ten layers)"},
      {"stages: [{op: torch, module: m}]\n",
       "f:1:10: stage 'stage0': op torch runs code, so it needs trusted: true"},
      {"a: &x 1\n", "f:1:5: anchors (&x) are not allowed"},
      {"kv: !!map {}\n", "f:1:5: tags (!x) are not allowed"},
      {"%YAML 1.2\n---\nname: a\n", "f:1:1: YAML directives are not allowed"},
      {"<<: {name: a}\n", "f:1:1: merge keys (<<) are not allowed"},
      {"name: a\n---\nname: b\n", "f:2:1: a second document; one file describes one deployment"},
      {std::string("name: a\0b\n", 10), "f:1:8: a NUL byte (is this a text file in UTF-8?)"},
      {"name: \xff\n", "f:1:7: not valid UTF-8"},
      {"\xff\xfen", "f:1:1: the file is UTF-16, must be UTF-8"},
      {"# nothing\n", "f:1:1: the file holds no graph"},
      {"kv: {budget: 2GB}\n",
       "f:1:14: kv.budget is '2GB', must be a number of bytes such as 512MiB or 2GiB, at most "
       "1024TiB or auto"},
      {"threads:\n", "f:1:1: threads has no value"},
      {"batching: {max_queud: 3}\n",
       "f:1:12: unknown key 'max_queud' in batching, did you mean 'max_queued'?"},
      {"batching: {max_queued: 0}\n",
       "f:1:24: batching.max_queued is '0', must be an integer in [1, 65536]"},
      {"batching: {prefill_chunk: 0}\n",
       "f:1:27: batching.prefill_chunk is '0', must be an integer in [1, 65536] or auto"},
      {"kv: {prefix_cache: yes}\n", "f:1:20: kv.prefix_cache is 'yes', must be true or false"},
      {"stages:\n- }\n", "f:2:3: not valid YAML: flow mapping with invalid extra closing brace"},
  };
  for (const auto& [text, expected] : kTable) BOOST_TEST(errors_of(text) == expected);
}

BOOST_AUTO_TEST_CASE(AutoIsNotTheDefaultChunk) {
  const auto graph = parse_graph_text("batching: {prefill_chunk: auto}\n", "f");
  BOOST_TEST_REQUIRE(graph.ok());
  BOOST_TEST(graph->prefill_chunk == 0);
}

BOOST_AUTO_TEST_CASE(DurationsHaveAUnit) {
  const auto delay_ms = [](const std::string& text) {
    return parse_graph_text("batching: {decode_delay: " + text + "}\n", "f");
  };
  BOOST_TEST(delay_ms("20ms")->decode_delay_ms == 20);
  BOOST_TEST(delay_ms("20 ms")->decode_delay_ms == 20);
  BOOST_TEST(delay_ms("60s")->decode_delay_ms == 60000);
  for (const std::string wrong : {"20", "0ms", "61s", "-1ms", "1.5s", "ms", "20us", "auto",
                                  "9223372036854775807s", "99999999999999999999ms"})
    BOOST_TEST(delay_ms(wrong).error().message ==
               "f:1:26: batching.decode_delay is '" + wrong +
                   "', must be a duration such as 50ms or 2s, in [1ms, 60000ms]");
}

// As people read them, in layers and in cores: 0-9 is ten.
BOOST_AUTO_TEST_CASE(RangesIncludeBothEnds) {
  const auto graph = parse_graph_text(
      "stages: [{layers: 0-9, device: 'cpu:0-1,4'}, {layers: 10}, {layers: 11-29}]\n", "f");
  BOOST_TEST_REQUIRE(graph.ok());
  const auto& stages = graph->stages;
  BOOST_TEST(stages[0].layers->begin == 0);
  BOOST_TEST(stages[0].layers->end == 10);
  BOOST_TEST((stages[0].device.cores == std::vector<int>{0, 1, 4}));
  BOOST_TEST(stages[1].layers->begin == 10);
  BOOST_TEST(stages[1].layers->end == 11);
  BOOST_TEST(stages[2].layers->end == 30);
}

BOOST_AUTO_TEST_CASE(AllErrorsAtOnceAndBounded) {
  BOOST_TEST(errors_of("a: 1\nthreads: 0\n") ==
             "f:1:1: unknown key 'a' in the file\n"
             "f:2:10: threads is '0', must be an integer in [1, 1024] or auto");
  std::string many;
  for (int i = 0; i < 60; ++i) many += "zz" + std::to_string(i) + ": 1\n";
  BOOST_TEST(errors_of(many).ends_with("\nf: and 10 more"));
}

}  // namespace
}  // namespace chainpump::graph
