// Gateways that die and come back, as fakes: what was under way goes on at the next one, from what
// the client has; what ended otherwise is not touched.
#include "gateway/resuming_service.h"

#include <boost/test/unit_test.hpp>
#include <deque>
#include <thread>

#include "tests/fakes/why.h"

namespace chainpump::gateway {
namespace {

using namespace std::chrono_literals;
using graph::FinishReason;

constexpr Duration kAwayMax = 500ms;

Update delta(int32_t choice, std::vector<TokenId> tokens, std::string text,
             FinishReason finish = FinishReason::none) {
  Update update;
  update.deltas.push_back(
      {.choice = choice, .tokens = std::move(tokens), .text = std::move(text), .finish = finish});
  return update;
}
Update end_of(Result<Usage> end) {
  Update update;
  update.end = std::move(end);
  return update;
}

/// What one gateway is to answer, and what it was asked.
struct Script {
  DeploymentInfo info;
  std::deque<Update> updates;  // of its generations, in order; then it is gone
  Result<Scores> scores = gone();
  Status ready = ok_status();
  std::optional<Error> refusal;  // of the next request, once
  std::vector<GenerateRequest> asked;
  int num_cancelled = 0;
};

class FakeGenerating final : public Generating {
 public:
  FakeGenerating(std::shared_ptr<Script> script, uint64_t seed)
      : script_(std::move(script)), seed_(seed) {}
  uint64_t seed() const override { return seed_; }
  Update next(Duration) override {
    if (script_->num_cancelled > 0) return end_of(make_error(ErrorCode::cancelled, "as asked"));
    if (script_->updates.empty()) return end_of(gone());
    Update update = std::move(script_->updates.front());
    script_->updates.pop_front();
    return update;
  }
  void cancel() override { ++script_->num_cancelled; }

 private:
  std::shared_ptr<Script> script_;
  const uint64_t seed_;
};

class FakeScored final : public Scored {
 public:
  explicit FakeScored(std::shared_ptr<Script> script) : script_(std::move(script)) {}
  Result<Scores> wait(Duration) override { return script_->scores; }

 private:
  std::shared_ptr<Script> script_;
};

class FakeService final : public Service {
 public:
  explicit FakeService(std::shared_ptr<Script> script) : script_(std::move(script)) {}
  const DeploymentInfo& deployment() const override { return script_->info; }
  Status wait_ready(Duration) override { return script_->ready; }
  Result<TokenIds> tokenize(const Prompt&) override {
    if (script_->updates.empty()) return gone();
    return TokenIds{7};
  }
  Result<std::unique_ptr<Generating>> generate(const GenerateRequest& request) override {
    if (script_->refusal) return *std::exchange(script_->refusal, std::nullopt);
    script_->asked.push_back(request);
    return std::unique_ptr<Generating>(
        std::make_unique<FakeGenerating>(script_, request.seed.value_or(42)));
  }
  Result<std::unique_ptr<Scored>> score(const ScoreRequest&) override {
    return std::unique_ptr<Scored>(std::make_unique<FakeScored>(script_));
  }
  Result<StatusReport> status(Duration) override { return gone(); }
  Result<Readiness> readiness(Duration) override { return gone(); }
  Result<StepEvents> trace(RankId, uint64_t, Duration) override { return gone(); }

 private:
  std::shared_ptr<Script> script_;
};

/// The gateways that there will be, one after the other; then none.
struct World {
  std::vector<std::shared_ptr<Script>> scripts;
  size_t num_connects = 0;
  Error none = make_error(ErrorCode::not_found, "no service");

  explicit World(size_t count) {
    for (size_t i = 0; i < count; ++i) scripts.push_back(std::make_shared<Script>());
  }
  std::unique_ptr<ResumingService> service() {
    return std::make_unique<ResumingService>(
        std::make_shared<FakeService>(scripts[0]),
        [this](Duration) -> Result<std::shared_ptr<Service>> {
          if (++num_connects >= scripts.size()) return none;
          return std::shared_ptr<Service>(std::make_shared<FakeService>(scripts[num_connects]));
        },
        kAwayMax, steady_clock());
  }
};

/// All that comes until the end.
Update drained(Generating& generating) {
  Update all;
  const TimePoint until = steady_clock().now() + 10s;
  while (!all.end) {
    BOOST_REQUIRE((steady_clock().now() < until));
    Update update = generating.next(10ms);
    for (Delta& each : update.deltas) all.deltas.push_back(std::move(each));
    all.end = std::move(update.end);
  }
  BOOST_TEST(generating.next(0ms).empty());
  return all;
}
std::string text_of(const Update& update) {
  std::string text;
  for (const Delta& each : update.deltas) text += each.text;
  return text;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(resuming)

BOOST_AUTO_TEST_CASE(it_goes_on_from_what_the_client_has) {
  World world(3);
  world.scripts[0]->updates = {delta(1, {5, 6}, "ab"), delta(0, {1}, "x")};
  world.scripts[1]->updates = {delta(1, {7}, "c", FinishReason::stop)};
  world.scripts[2]->updates = {delta(0, {2}, "y", FinishReason::length),
                               end_of(Usage{.num_prompt_tokens = 3, .choices = {}})};
  const auto service = world.service();
  GenerateRequest request;
  request.num_choices = 2;
  request.deadline = 60s;
  const auto generating = service->generate(request);
  BOOST_REQUIRE(generating.ok());
  const Update all = drained(**generating);
  BOOST_TEST(text_of(all) == "abxcy");
  BOOST_REQUIRE(all.end->ok());
  BOOST_TEST((*all.end)->num_prompt_tokens == 3);
  BOOST_TEST((*generating)->seed() == 42u);

  BOOST_TEST(world.scripts[0]->asked[0].so_far.empty());
  const GenerateRequest& second = world.scripts[1]->asked.at(0);
  BOOST_TEST((second.seed == 42));  // as the first one drew it
  BOOST_TEST((second.deadline <= 60s));
  BOOST_TEST_REQUIRE(second.so_far.size() == 2u);
  BOOST_TEST((second.so_far[0].tokens == std::vector<TokenId>{1}));
  BOOST_TEST((second.so_far[1].tokens == std::vector<TokenId>{5, 6}));
  BOOST_TEST((second.so_far[1].finish == FinishReason::none));
  const GenerateRequest& third = world.scripts[2]->asked.at(0);
  BOOST_TEST((third.so_far[1].tokens == std::vector<TokenId>{5, 6, 7}));
  BOOST_TEST((third.so_far[1].finish == FinishReason::stop));
}

BOOST_AUTO_TEST_CASE(without_a_token_it_begins_anew_with_its_seed) {
  World world(2);
  world.scripts[1]->updates = {delta(0, {1}, "x", FinishReason::stop), end_of(Usage{})};
  const auto service = world.service();
  const auto generating = service->generate({});
  BOOST_TEST(text_of(drained(**generating)) == "x");
  BOOST_TEST(world.scripts[1]->asked.at(0).so_far.empty());
  BOOST_TEST((world.scripts[1]->asked.at(0).seed == 42));
}

BOOST_AUTO_TEST_CASE(an_end_of_its_own_is_one) {
  World world(2);
  const Error failed = make_error(ErrorCode::disconnected, "stage 'a' died: killed");
  world.scripts[0]->updates = {end_of(failed)};
  const auto service = world.service();
  const auto generating = service->generate({});
  const Update all = drained(**generating);
  BOOST_TEST(all.end->error().message == failed.message);
  BOOST_TEST(world.num_connects == 0u);
}

BOOST_AUTO_TEST_CASE(a_gateway_that_loads_or_is_full_is_asked_again) {
  World world(2);
  world.scripts[1]->refusal = make_error(ErrorCode::overloaded, "full; retry after 1 s");
  world.scripts[1]->updates = {delta(0, {1}, "x", FinishReason::stop), end_of(Usage{})};
  const auto service = world.service();
  const auto generating = service->generate({});
  BOOST_TEST(text_of(drained(**generating)) == "x");
  BOOST_TEST(world.num_connects == 1u);
}

BOOST_AUTO_TEST_CASE(a_service_that_ended_or_stays_away_is_an_error) {
  for (const bool ended : {true, false}) {
    World world(1);
    if (!ended) world.none = gone();
    const auto service = world.service();
    const auto generating = service->generate({});
    const TimePoint began = steady_clock().now();
    const Update all = drained(**generating);
    BOOST_REQUIRE(!all.end->ok());
    BOOST_TEST((steady_clock().now() - began < kAwayMax + 1s));
    if (ended) {
      BOOST_TEST(all.end->error().message == "the service has gone");
      BOOST_TEST(world.num_connects == 1u);
    } else {
      BOOST_TEST(all.end->error().message ==
                 "the service did not come back within 0.5 s: the service has gone");
    }
  }
}

BOOST_AUTO_TEST_CASE(another_deployment_does_not_take_over) {
  const auto differs = [](std::function<void(DeploymentInfo&)> change) {
    World world(2);
    change(world.scripts[1]->info);
    const auto service = world.service();
    const auto generating = service->generate({});
    const Update all = drained(**generating);
    const bool is_refused =
        all.end->ok() ? false : all.end->error().code == ErrorCode::invalid_argument;
    BOOST_TEST(is_refused == world.scripts[1]->asked.empty());
    return is_refused;
  };
  BOOST_TEST(differs([](DeploymentInfo& info) { info.build = "other"; }));
  BOOST_TEST(differs([](DeploymentInfo& info) { info.graph_name = "other"; }));
  BOOST_TEST(differs([](DeploymentInfo& info) { info.plan.model_path = "other"; }));
  BOOST_TEST(differs([](DeploymentInfo& info) { info.plan.kv.type = DType::int8; }));
  BOOST_TEST(differs([](DeploymentInfo& info) { info.plan.exact_activations = true; }));
  BOOST_TEST(differs([](DeploymentInfo& info) { info.isa = "other"; }));
  // One that was changed while it ran is the same.
  BOOST_TEST(!differs([](DeploymentInfo& info) { info.graph_text = "other"; }));
}

BOOST_AUTO_TEST_CASE(a_cancel_while_it_is_away_ends_it) {
  World world(1);
  world.none = gone();
  const auto service = world.service();
  const auto generating = service->generate({});
  BOOST_TEST((*generating)->next(10ms).empty());
  (*generating)->cancel();
  const Update all = drained(**generating);
  BOOST_TEST((all.end->error().code == ErrorCode::cancelled));
  BOOST_TEST(world.scripts[0]->num_cancelled == 0);
}

BOOST_AUTO_TEST_CASE(scores_are_asked_for_again) {
  World world(2);
  world.scripts[1]->scores = Scores{.logprobs = {-1.5f}, .argmax = {3}};
  const auto service = world.service();
  const auto scored = service->score({});
  BOOST_REQUIRE(scored.ok());
  Result<Scores> scores = gone();
  for (int i = 0; i < 5 && !scores.ok(); ++i) scores = (*scored)->wait(10ms);
  BOOST_REQUIRE(scores.ok());
  BOOST_TEST(scores->logprobs.at(0) == -1.5f);
}

BOOST_AUTO_TEST_CASE(calls_are_made_again_by_all_on_one_new_connection) {
  World world(2);
  world.scripts[1]->updates = {delta(0, {1}, "x")};
  const auto service = world.service();
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&] {
      if (!service->tokenize(TokenIds{1}).ok()) std::abort();
    });
  for (std::thread& thread : threads) thread.join();
  BOOST_TEST(world.num_connects == 1u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::gateway
