// A rank of a service becomes slow: it is named, and evicted if the plan says so; requests get the
// tokens that they would have had.
#include <algorithm>
#include <future>
#include <mutex>

#include "actors/service_folder.h"
#include "tests/actors/running_service.h"
#include "transport/rpc/rank_client.h"
#include "transport/rpc/unix_socket.h"

namespace chainpump::actors {
namespace {

using namespace std::chrono_literals;
using transport::FaultOrder;

/// A request, and what has come of it.
struct Answer {
  std::mutex mutex;
  std::vector<TokenId> tokens;
  std::promise<Result<Ok>> ended;
  std::future<Result<Ok>> end = ended.get_future();

  void ask(Runtime& runtime) {
    SequenceRequest request;
    for (int32_t i = 0; i < 30; ++i) request.prompt.push_back(i * 31 % 80);
    request.sampling.max_new_tokens = 3000;
    request.sampling.temperature = 0.9f;
    request.sampling.seed = 42;
    request.sampling.ignore_eos = true;
    SequenceCallbacks callbacks;
    callbacks.on_token = [this](const graph::TokenResult& token) {
      const std::lock_guard lock(mutex);
      tokens.push_back(token.token);
    };
    callbacks.on_score = [](const graph::ScoreResult&) {};
    callbacks.on_end = [this](Result<Ok> how) { ended.set_value(std::move(how)); };
    runtime.submit(request, 2 * kPatience, std::move(callbacks));
  }
  std::vector<TokenId> take() {
    BOOST_REQUIRE(end.wait_for(2 * kPatience) == std::future_status::ready);
    const Result<Ok> how = end.get();
    BOOST_TEST(how.ok(), fakes::why(how));
    return tokens;
  }
};

void arm(const std::string& folder, RankId rank, const FaultOrder& order) {
  auto thread = transport::rpc::RpcThread::create();
  auto socket = transport::rpc::connect_unix(rank_socket(folder, rank));
  BOOST_REQUIRE((thread.ok() && socket.ok()));
  transport::rpc::RankClient client(*thread, std::move(*socket), [](const Error&) {});
  client.hello(kPatience, [](const Result<transport::rpc::HelloReply>&) {});
  std::promise<bool> armed;
  client.arm(order, kPatience, [&](const Result<Ok>& done) { armed.set_value(done.ok()); });
  BOOST_TEST(armed.get_future().get());
}

void check(const Model& model, bool evicts, const std::vector<TokenId>& tokens) {
  graph::Plan plan = plan_for(model.path, 3, false);
  plan.failover_evicts_slow = evicts;
  Running service(plan);
  const auto runtime = service.attach_ready();
  const auto slow = [&] { return runtime->health().lanes.at(0).slow; };
  Answer calm, answer;
  calm.ask(*runtime);
  BOOST_TEST((calm.take() == tokens));
  BOOST_TEST(slow() == "");
  const pid_t victim = service.pid_of("rank-1");

  answer.ask(*runtime);
  arm(service.folder, RankId(1), {.kind = FaultOrder::Kind::slowness, .factor = 400, .lasts = 20s});
  const TimePoint began = steady_clock().now();
  const std::string words = rank_name(plan, RankId(1)) + ": its steps take ";
  if (evicts) {
    BOOST_TEST(wait_for([&] {
      const auto processes = service.processes();
      return std::none_of(processes.begin(), processes.end(),
                          [&](const Process& process) { return process.pid == victim; });
    }));
  } else {
    BOOST_TEST(wait_for([&] { return !slow().empty(); }));
    BOOST_TEST(slow().starts_with(words), slow());
    BOOST_TEST(runtime->health().ready);
  }
  const double found_s = to_seconds(steady_clock().now() - began);
  BOOST_TEST_MESSAGE((evicts ? "evicted" : "named") << " after " << found_s << " s");
  BOOST_TEST(found_s < 10);
  if (!evicts) arm(service.folder, RankId(1), {});
  BOOST_TEST((answer.take() == tokens));
  BOOST_TEST(wait_for([&] { return slow().empty(); }));
  BOOST_TEST((service.pid_of("rank-1") != victim) == evicts);
  BOOST_TEST(!service.failed(0s));
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_rank_that_becomes_slow_is_named_or_evicted) {
  const Model model;
  Answer alone;
  std::vector<TokenId> expected;
  {
    auto runtime = Runtime::start(plan_for(model.path, 1, true),
                                  {.in_process = true, .rank_program = {}, .isa = {}});
    BOOST_REQUIRE((*runtime)->wait_ready(kPatience).ok());
    alone.ask(**runtime);
    expected = alone.take();
  }
  BOOST_TEST(expected.size() == 3000u);
  check(model, false, expected);
  check(model, true, expected);
}

}  // namespace chainpump::actors
