#include "cli/graph_commands.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/unique_fd.h"
#include "cli/yaml_output.h"
#include "graph/yaml_events.h"
#include "models/llama/profile.h"
#include "tests/fakes/temporary_folder.h"

namespace chainpump::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Output {
  int status = 0;
  std::string out;
  std::string err;
};

/// Sends one of this process's standard descriptors to a file while it lives.
class Captured {
 public:
  Captured(int descriptor, const std::filesystem::path& file)
      : descriptor_(descriptor), file_(file), kept_(dup(descriptor)) {
    const UniqueFd target(open(file.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600));
    CHECK(target.valid());
    CHECK(dup2(target.get(), descriptor_) == descriptor_);
  }
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;
  ~Captured() { dup2(kept_.get(), descriptor_); }
  std::string text() const {
    std::ifstream in(file_);
    return {std::istreambuf_iterator<char>(in), {}};
  }

 private:
  int descriptor_;
  std::filesystem::path file_;
  UniqueFd kept_;
};

template <typename Command>
Output run(Command command) {
  const TemporaryFolder folder;
  Output output;
  fflush(stdout);  // what the test program itself has said so far
  const Captured out(STDOUT_FILENO, folder.path() / "out");
  const Captured err(STDERR_FILENO, folder.path() / "err");
  output.status = command();
  fflush(stdout);
  fflush(stderr);
  output.out = out.text();
  output.err = err.text();
  return output;
}

std::string write(const TemporaryFolder& folder, std::string_view text) {
  const std::string path = folder.path() / "g.yaml";
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

/// Equal but for what YAML leaves open: every scalar is compared by its text.
void check_same(const graph::YamlNode& yaml, const Json& json) {
  using Kind = graph::YamlNode::Kind;
  if (json.is_object() && !json.empty()) {
    BOOST_TEST_REQUIRE((yaml.kind == Kind::mapping));
    BOOST_TEST_REQUIRE(yaml.entries.size() == json.size());
    size_t i = 0;
    for (const auto& [key, value] : json.items()) {
      BOOST_TEST(yaml.entries[i].key == key);
      check_same(yaml.entries[i++].value, value);
    }
  } else if (json.is_array()) {
    BOOST_TEST_REQUIRE((yaml.kind == Kind::sequence));
    BOOST_TEST_REQUIRE(yaml.items.size() == json.size());
    for (size_t i = 0; i < json.size(); ++i) check_same(yaml.items[i], json[i]);
  } else if (json.is_string()) {
    BOOST_TEST(yaml.text == json.get<std::string>());
  } else if (json.is_number_float()) {
    BOOST_TEST(std::stod(yaml.text) == json.get<double>());
  } else if (!json.is_object()) {
    BOOST_TEST(yaml.text == json.dump());
  }
}

void check_yaml(const std::string& text, const Json& json) {
  graph::YamlNode root;
  graph::Diagnostics errors;
  BOOST_TEST_REQUIRE(graph::read_yaml(text, root, errors), errors.to_text(text));
  check_same(root, json);
}

struct RealModel {
  int64_t tensor_bytes = 0;
  graph::ModelProfile profile;
};

const RealModel& real_model() {
  static const RealModel model = [] {
    const char* path = getenv("CHAINPUMP_TEST_MODEL");
    CHECK_MSG(path != nullptr, "CHAINPUMP_TEST_MODEL names no model: ctest sets it");
    const auto file = models::GgufFile::open(path);
    CHECK_MSG(file.ok(), "{}", file.error().message);
    RealModel m;
    for (const auto& tensor : file->tensors())
      m.tensor_bytes += static_cast<int64_t>(tensor.bytes.size());
    m.profile = models::read_profile(*file).value();
    return m;
  }();
  return model;
}

const graph::MachineProfile kMachine = graph::nominal_machine(2, int64_t{8} << 30);
const std::vector<graph::Node> kAlone = {{.name = "", .machine = kMachine}};
const std::vector<graph::Node> kThree = {{.name = "a", .machine = kMachine},
                                         {.name = "b", .labels = {"fast"}, .machine = kMachine},
                                         {.name = "c", .labels = {"fast"}, .machine = kMachine}};

Output plan(const std::string& graph, const graph::PlanOverrides& overrides, bool json = true,
            bool yaml = false, const std::vector<graph::Node>& nodes = kAlone) {
  return run([&] {
    return run_plan({.graph = graph, .json = json, .yaml = yaml}, overrides, real_model().profile,
                    nodes, "over three nodes");
  });
}

BOOST_AUTO_TEST_CASE(PlanSaysOnWhichNode) {
  const TemporaryFolder folder;
  const std::string graph =
      write(folder, "stages: [{nodes: [a]}, {nodes: [fast], replicas: 2}, {nodes: [c, a]}]\n");
  const Output json = plan(graph, {}, true, false, kThree);
  BOOST_TEST(json.status == 0, json.err);
  const auto tree = nlohmann::json::parse(json.out);
  BOOST_TEST(tree["over"] == "over three nodes");
  BOOST_TEST(tree["nodes"].size() == 3u);
  BOOST_TEST((tree["stages"][1]["nodes"] == std::vector<std::string>{"b", "c"}));
  BOOST_TEST(tree.contains("tightest_node"));
  const Output table = plan(graph, {}, false, false, kThree);
  BOOST_TEST(table.out.find("\nover three nodes:\n") != std::string::npos, table.out);
  BOOST_TEST(table.out.find(" on b, c\n") != std::string::npos, table.out);
  BOOST_TEST(table.out.find(" on c; else a\n") != std::string::npos, table.out);
  const Output alone = plan(write(folder, "stages: 3\n"), {});
  BOOST_TEST(!nlohmann::json::parse(alone.out).contains("nodes"));
}

BOOST_AUTO_TEST_CASE(ValidateSaysWhatIsWrongAndWhere) {
  const TemporaryFolder folder;
  const std::string good = write(folder, "stages: 3\n");
  Output done = run([&] { return run_validate({.graph = good}); });
  BOOST_TEST(done.status == 0);
  BOOST_TEST(done.out == good + ": valid, 3 stage(s)\n");
  BOOST_TEST(done.err.empty());
  BOOST_TEST(run([] { return run_validate({.graph = "demo"}); }).status == 0);

  const std::string bad = write(folder, "stagse: 3\nkv: {type: f23}\n");
  const std::string first = "unknown key 'stagse' in the file, did you mean 'stages'?";
  const std::string second =
      "kv.type is 'f23', must be one of f32, bf16, f16, int8, did you mean 'f32'?";
  done = run([&] { return run_validate({.graph = bad}); });
  BOOST_TEST(done.status == 3);
  BOOST_TEST(done.out.empty());
  BOOST_TEST(done.err == bad + ":1:1: " + first + "\n" + bad + ":2:12: " + second + "\n");

  const Json expected = {{"valid", false},
                         {"errors",
                          {{{"file", bad}, {"line", 1}, {"column", 1}, {"message", first}},
                           {{"file", bad}, {"line", 2}, {"column", 12}, {"message", second}}}},
                         {"more_errors", 0}};
  done = run([&] { return run_validate({.graph = bad, .json = true}); });
  BOOST_TEST(done.status == 3);
  BOOST_TEST(done.err.empty());
  BOOST_TEST(Json::parse(done.out) == expected);
  done = run([&] { return run_validate({.graph = bad, .yaml = true}); });
  BOOST_TEST(done.status == 3);
  check_yaml(done.out, expected);
}

BOOST_AUTO_TEST_CASE(FilesThatCannotBeRead) {
  const TemporaryFolder folder;
  for (const std::string& path : {std::string("/nowhere/g.yaml"), std::string("/dev/zero"),
                                  folder.path().string(), write(folder, "")}) {
    const Output text = run([&] { return run_validate({.graph = path}); });
    BOOST_TEST(text.status == 3);
    BOOST_TEST(text.err.find(path) != std::string::npos, text.err);
    const Output done = run([&] { return run_validate({.graph = path, .json = true}); });
    BOOST_TEST(done.status == 3);
    const Json json = Json::parse(done.out);
    BOOST_TEST(json["valid"] == false);
    BOOST_TEST(json["errors"][0]["line"].is_null());
    BOOST_TEST(!json["errors"][0]["message"].get<std::string>().empty());
    BOOST_TEST(plan(path, {}).status == 3);
  }
}

BOOST_AUTO_TEST_CASE(ExplainKnowsEveryKey) {
  const Output known = run([] { return run_explain("kv.type"); });
  BOOST_TEST(known.status == 0);
  BOOST_TEST(known.out.find("f32, bf16, f16") != std::string::npos);
  const Output unknown = run([] { return run_explain("kv.typ"); });
  BOOST_TEST(unknown.status == 2);
  BOOST_TEST(unknown.err == "no graph key 'kv.typ', did you mean 'kv.type'?\n");
  const Output all = run([] { return run_explain(""); });
  BOOST_TEST(all.status == 0);
  for (const char* key : {"stages[].layers", "limits.memory", "partition"})
    BOOST_TEST(all.out.find(key) != std::string::npos);
}

BOOST_AUTO_TEST_CASE(EveryExampleIsValid) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("examples"))
    if (entry.path().extension() == ".yaml") {
      const Output done = run([&] { return run_validate({.graph = entry.path().string()}); });
      BOOST_TEST(done.status == 0, done.err);
      ++count;
    }
  BOOST_TEST(count > 0u);
}

BOOST_AUTO_TEST_CASE(PlansOfTheRealModel) {
  for (const int stages : {1, 2, 3, 5, 30}) {
    const Output done = plan("demo", {.stages = stages});
    BOOST_TEST_REQUIRE(done.status == 0, done.err);
    const Json json = Json::parse(done.out);
    BOOST_TEST(json["graph"] == "demo");
    BOOST_TEST(json["fits"] == true);
    BOOST_TEST(json["context_tokens"] == real_model().profile.context_tokens);
    BOOST_TEST_REQUIRE(json["stages"].size() == static_cast<size_t>(stages));
    int next = 0;
    int64_t weights = 0;
    int64_t all = 0;
    for (const Json& stage : json["stages"]) {
      BOOST_TEST(stage["layers"][0] == next);
      next = stage["layers"][1];
      const int64_t bytes = stage["weight_bytes"];
      weights += bytes;
      all += bytes + stage["kv_bytes"].get<int64_t>() + stage["slot_bytes"].get<int64_t>();
      BOOST_TEST(stage["predicted_decode_ms"] > 0);
      BOOST_TEST(stage["predicted_prefill_ms"] > 0);
      BOOST_TEST(stage["cores"].size() == (stages > 2 ? 0u : 2u / static_cast<unsigned>(stages)));
    }
    BOOST_TEST(next == real_model().profile.num_layers);
    // With one stage every byte of the file's tensors; the tied table stands at both ends of more.
    const int64_t table = stages == 1 ? 0 : real_model().profile.embedding.total;
    BOOST_TEST(weights == real_model().tensor_bytes + table);
    const int64_t log = json["failover"]["replay_log_bytes"];
    BOOST_TEST((log > 0) == (stages > 1));
    BOOST_TEST(json["needed_bytes"] == all + (int64_t{16} << 20) * stages + log * (stages - 1));

    BOOST_TEST_REQUIRE(json["edges"].size() == static_cast<size_t>(stages));
    for (size_t i = 0; i < json["edges"].size(); ++i) {
      const Json& edge = json["edges"][i];
      const bool is_return = i + 1 == json["edges"].size();
      BOOST_TEST(edge["is_return"] == is_return);
      BOOST_TEST(edge["from"] == json["stages"][i]["name"]);
      BOOST_TEST(edge["to"] == json["stages"][is_return ? 0 : i + 1]["name"]);
      BOOST_TEST(edge["transport"] == (stages == 1 ? "loopback" : "tcp"));
      BOOST_TEST(edge["credits"] >= 4);
      BOOST_TEST(edge["slot_bytes"] > 0);
    }
    check_yaml(plan("demo", {.stages = stages}, false, true).out, json);
  }
}

BOOST_AUTO_TEST_CASE(VerdictsAndTheirExitStatus) {
  const TemporaryFolder folder;
  const std::string no_context = write(folder, "limits: {memory: 64MiB}\n");
  Output done = plan(no_context, {});
  BOOST_TEST(done.status == 4);
  Json json = Json::parse(done.out);
  BOOST_TEST(json["fits"] == false);
  BOOST_TEST(json["largest_context_tokens"] == 0);
  BOOST_TEST(json["needed_bytes"] > json["available_bytes"]);

  // The largest context fits, and one more block does not.
  const std::string tight = write(folder, "kv: {budget: 20MiB, context: 8192}\n");
  done = plan(tight, {});
  BOOST_TEST(done.status == 4);
  const int32_t largest = Json::parse(done.out)["largest_context_tokens"];
  BOOST_TEST(largest > 0);
  BOOST_TEST(plan(tight, {.context_tokens = largest}).status == 0);
  BOOST_TEST(plan(tight, {.context_tokens = largest + 1}).status == 4);
  done = plan(tight, {}, false);
  BOOST_TEST(done.status == 4);
  BOOST_TEST(done.out.find("does not fit: ") != std::string::npos, done.out);
  BOOST_TEST(done.out.find(fmt::format("largest that fits {}", largest)) != std::string::npos);
}

BOOST_AUTO_TEST_CASE(RefusedPlans) {
  const TemporaryFolder folder;
  Output done = plan("demo", {.stages = 31});
  BOOST_TEST(done.status == 2);
  BOOST_TEST(done.err == "31 stages, but the model has 30 layers\n");
  done = plan(write(folder, "stages: [{op: encoder}]\n"), {});
  BOOST_TEST(done.status == 2);
  BOOST_TEST(done.err == "stage 'stage0' (1:10): op encoder cannot be run yet\n");
}

BOOST_AUTO_TEST_CASE(TablesShowLayersAsFilesSayThem) {
  const Output done = plan("demo", {.stages = 30}, false);
  BOOST_TEST(done.status == 0);
  BOOST_TEST(done.out.find(" 29-29 ") != std::string::npos, done.out);
  BOOST_TEST(done.out.find("stage29 -> stage0") != std::string::npos);
  BOOST_TEST(done.out.find("\nfits: ") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(YamlQuotesWhatCouldBeMistaken) {
  const Json json = {{"on", "off"},
                     {"Norway's", "no"},
                     {"empty_list", Json::array()},
                     {"empty_map", Json::object()},
                     {"small", 1e-05},
                     {"large", 1e+300},
                     {"text", "a\nb: \"c\" # \xC3\xA9"},
                     {"nested", {{1, 2}, {{"a", {1, {{"b", nullptr}}}}}, true}}};
  check_yaml(to_yaml(json), json);
  BOOST_TEST(to_yaml({{"a", {{{"b", 1}, {"c", {1, 2}}}, {{"b", 1e-05}}}}}) ==
             "a:\n  - b: 1\n    c: [1, 2]\n  - b: 1.0e-05\n");
  BOOST_TEST(to_yaml({{"on", "a"}}) == "\"on\": \"a\"\n");
}

}  // namespace
}  // namespace chainpump::cli
