// The real model behind the public interface: text, chats and ids in, tokens out, the same for
// every client and at any time.
#include <cstdlib>

#include "graph/demo_graph.h"
#include "graph/planner.h"
#include "models/llama/profile.h"
#include "tests/gateway/rpc/fixture.h"

namespace chainpump::gateway::rpc {
namespace {

using namespace std::chrono_literals;

graph::Plan plan_for(const models::GgufFile& file, const std::string& path) {
  const auto graph = graph::parse_graph_text(graph::kDemoGraph, "demo");
  BOOST_REQUIRE_MESSAGE(graph.ok(), why(graph));
  const auto profile = models::read_profile(file);
  BOOST_REQUIRE_MESSAGE(profile.ok(), why(profile));
  graph::PlanOverrides overrides;
  overrides.stages = 2;
  overrides.model_path = path;
  overrides.context_tokens = 1024;
  overrides.transport = graph::TransportKind::loopback;
  const auto plan =
      make_plan(*graph, *profile, graph::nominal_machine(2, int64_t{8} << 30), overrides);
  BOOST_REQUIRE_MESSAGE(plan.ok(), why(plan));
  return *plan;
}

/// A deployment in this process with its door, as a gateway's process has it.
class Deployed {
 public:
  Deployed() {
    const char* path = std::getenv("CHAINPUMP_TEST_MODEL");
    BOOST_REQUIRE_MESSAGE(path && std::filesystem::exists(path),
                          "CHAINPUMP_TEST_MODEL names no file: run tools/setup.sh");
    const auto file = models::GgufFile::open(path);
    BOOST_REQUIRE_MESSAGE(file.ok(), why(file));
    DeploymentInfo info;
    info.plan = plan_for(*file, path);
    actors::RuntimeOptions options;
    options.in_process = true;
    options.spin_between_ops = false;
    auto runtime = actors::Runtime::start(info.plan, std::move(options));
    BOOST_REQUIRE_MESSAGE(runtime.ok(), why(runtime));
    runtime_ = std::move(*runtime);
    auto encoder = PromptEncoder::create(*file);
    BOOST_REQUIRE_MESSAGE(encoder.ok(), why(encoder));
    const Status ready = runtime_->wait_ready(60s);
    BOOST_REQUIRE_MESSAGE(ready.ok(), why(ready));
    engine_ = std::make_unique<RuntimeEngine>(*runtime_);
    core_ = std::make_unique<Core>(*engine_, std::move(*encoder), std::move(info), CoreOptions{},
                                   steady_clock());
    core_->set_ready("ready");
    server_ = std::make_unique<Server>(
        listen_at(path_), *core_,
        ServerOptions{.uid = ::geteuid(), .on_tick = [this] { return !stop_; }});
    thread_ = std::thread([this] { (void)server_->run(); });
  }
  ~Deployed() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    if (runtime_) runtime_->stop();
  }
  std::unique_ptr<Client> connect() {
    auto client = Client::connect(path_, kPatience);
    BOOST_REQUIRE_MESSAGE(client.ok(), why(client));
    return std::move(*client);
  }
  Core& core() { return *core_; }

 private:
  TemporaryFolder folder_;
  std::string path_ = (folder_.path() / "socket").string();
  std::unique_ptr<actors::Runtime> runtime_;
  std::unique_ptr<RuntimeEngine> engine_;
  std::unique_ptr<Core> core_;
  std::unique_ptr<Server> server_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

GenerateRequest asking(Prompt prompt, int32_t max_new_tokens) {
  GenerateRequest request;
  request.prompt = std::move(prompt);
  request.sampling.max_new_tokens = max_new_tokens;
  request.sampling.ignore_eos = true;
  request.seed = 7;
  return request;
}

/// The tokens and text of each choice.
std::vector<std::pair<TokenIds, std::string>> choices_of(Client& client,
                                                         const GenerateRequest& request) {
  auto generating = client.generate(request);
  BOOST_REQUIRE_MESSAGE(generating.ok(), why(generating));
  Collected got;
  got.collect(**generating);
  BOOST_REQUIRE_MESSAGE(got.end->ok(), why(*got.end));
  std::vector<std::pair<TokenIds, std::string>> choices(static_cast<size_t>(request.num_choices));
  for (const Delta& delta : got.deltas) {
    auto& [tokens, text] = choices.at(static_cast<size_t>(delta.choice));
    tokens.insert(tokens.end(), delta.tokens.begin(), delta.tokens.end());
    text += delta.text;
    if (request.sampling.num_top_logprobs < 0) continue;
    BOOST_REQUIRE_EQUAL(delta.logprobs.size(), delta.tokens.size());
    for (const TokenLogprobs& logprobs : delta.logprobs) {
      BOOST_TEST(logprobs.logprob <= 0.0f);
      BOOST_TEST(logprobs.top.size() == static_cast<size_t>(request.sampling.num_top_logprobs));
    }
  }
  return choices;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_deployment_serves_its_clients) {
  Deployed deployed;
  const auto client = deployed.connect();
  const Chat chat{{{.role = "user", .content = "Name three rivers."}}};
  const RawText text{"The three primary colours are"};

  // Whichever way a prompt is given, and again.
  for (const Prompt& prompt : {Prompt(chat), Prompt(text)}) {
    const auto ids = client->tokenize(prompt);
    BOOST_REQUIRE_MESSAGE(ids.ok(), why(ids));
    const auto by_prompt = choices_of(*client, asking(prompt, 12));
    BOOST_TEST(by_prompt[0].first.size() == 12u);
    BOOST_TEST(!by_prompt[0].second.empty());
    BOOST_TEST((choices_of(*client, asking(*ids, 12)) == by_prompt));
  }

  // Choices differ, are the same each time, and the first is that of a request with one.
  GenerateRequest three = asking(text, 10);
  three.num_choices = 3;
  three.sampling.temperature = 1.5f;
  three.sampling.num_top_logprobs = 3;
  GenerateRequest one = three;
  one.num_choices = 1;
  const auto choices = choices_of(*client, three);
  BOOST_TEST((choices_of(*client, three) == choices));
  BOOST_TEST((choices_of(*client, one)[0] == choices[0]));
  BOOST_TEST((choices[1] != choices[0]));
  BOOST_TEST((choices[2] != choices[1]));

  // Two clients at once do not disturb each other.
  const auto other = deployed.connect();
  std::vector<std::pair<TokenIds, std::string>> others;
  std::thread second([&] { others = choices_of(*other, three); });
  BOOST_TEST((choices_of(*client, three) == choices));
  second.join();
  BOOST_TEST((others == choices));

  // A dropped request is gone at once, on the stages too.
  for (int round = 0; round < 10; ++round) {
    auto generating = client->generate(asking(text, 1000));
    BOOST_REQUIRE_MESSAGE(generating.ok(), why(generating));
    if (round % 2 == 0) (void)(*generating)->next(kPatience);
    generating->reset();
    BOOST_TEST(wait_for([&] { return deployed.core().status().num_sequences == 0; }));
  }
  const auto scored = client->score({.prompt = {1, 2, 3}, .targets = {4, 5}});
  BOOST_REQUIRE(scored.ok());
  const auto scores = (*scored)->wait(kPatience);
  BOOST_REQUIRE_MESSAGE(scores.ok(), why(scores));
  BOOST_TEST(scores->logprobs.size() == 2u);
  BOOST_TEST(scores->logprobs[0] < 0.0f);
  const auto status = client->status(kPatience);
  BOOST_REQUIRE_MESSAGE(status.ok(), why(status));
  BOOST_TEST(status->stages.stages.size() == 2u);
  BOOST_TEST(status->num_failed == 0u);
  BOOST_TEST(status->num_cancelled == 10u);
}

}  // namespace chainpump::gateway::rpc
