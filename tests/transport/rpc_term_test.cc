// Coordinators that follow each other, at one rank and at one agent: what an older one orders is
// refused, whatever it had been allowed before.
#include <unistd.h>

#include <atomic>

#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/why.h"
#include "tests/transport/fake_rank.h"
#include "transport/rpc/agent_client.h"
#include "transport/rpc/agent_server.h"
#include "transport/rpc/unix_socket.h"

namespace chainpump::transport::rpc {
namespace {

using fakes::why;
using namespace std::chrono_literals;

template <typename T, typename Start>
Result<T> answer_of(Start start) {
  auto promise = std::make_shared<std::promise<Result<T>>>();
  auto future = promise->get_future();
  start([promise](Result<T> result) { promise->set_value(std::move(result)); });
  BOOST_REQUIRE((future.wait_for(kPatience) == std::future_status::ready));
  return future.get();
}

UniqueFd connected(const std::string& path) {
  auto socket = connect_unix(path);
  BOOST_TEST_REQUIRE(socket.ok(), why(socket));
  return *std::move(socket);
}

RpcThread rpc_thread() {
  auto thread = RpcThread::create();
  BOOST_TEST_REQUIRE(thread.ok());
  return *std::move(thread);
}

/// As a coordinator of that term, or 0: a gateway, or one that is alone.
struct RankCaller {
  RankCaller(RpcThread& thread, const std::string& path)
      : client(thread, connected(path), [](const Error&) {}) {
    BOOST_TEST(answer_of<HelloReply>([&](auto done) { client.hello(5s, std::move(done)); }).ok());
  }
  Result<LoadReport> load(uint64_t term) {
    LoadParams params{.term = term};
    params.plan.model_path = "m";
    params.plan.stages.resize(2);
    return answer_of<LoadReport>(
        [&](auto done) { client.load(params, 5s, nullptr, std::move(done)); });
  }
  Result<StageHoldings> fence() {
    return answer_of<StageHoldings>([&](auto done) { client.fence(0, 5, 5s, std::move(done)); });
  }
  Result<Ok> shutdown() {
    return answer_of<Ok>([&](auto done) { client.shutdown(5s, std::move(done)); });
  }
  RankClient client;
};

struct FakeAgent final : AgentHandler {
  std::atomic<int> num_kills{0};
  Result<std::string> on_spawn(uint32_t, uint32_t) override { return std::string("/there"); }
  void on_kill(uint32_t) override { ++num_kills; }
  std::vector<AgentProcess> on_list() override { return {}; }
};

struct AgentCaller {
  AgentCaller(RpcThread& thread, const std::string& path)
      : client(thread, connected(path), [](const Error&) {}) {
    BOOST_TEST(answer_of<HelloReply>([&](auto done) { client.hello(5s, std::move(done)); }).ok());
  }
  Result<Ok> lead(uint64_t term) {
    return answer_of<Ok>([&](auto done) { client.lead(term, 5s, std::move(done)); });
  }
  Result<Ok> kill() {
    return answer_of<Ok>([&](auto done) { client.kill(3, 5s, std::move(done)); });
  }
  Result<std::string> spawn() {
    return answer_of<std::string>([&](auto done) { client.spawn(1, 1, 5s, std::move(done)); });
  }
  AgentClient client;
};

template <typename T>
bool is_fenced(const Result<T>& result) {
  return !result.ok() && result.error().code == ErrorCode::cancelled;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_rank_obeys_the_newest_term) {
  const TemporaryFolder folder;
  const std::string path = (folder.path() / "rank.sock").string();
  auto listener = listen_unix(path);
  BOOST_TEST_REQUIRE(listener.ok());
  FakeRank rank;
  auto served = std::async(std::launch::async, [&, fd = listener->release()] {
    return serve_rank(UniqueFd(), UniqueFd(fd), rank);
  });
  RpcThread thread = rpc_thread();
  RankCaller old(thread, path), next(thread, path), gateway(thread, path);
  BOOST_TEST(old.load(7).ok());
  BOOST_TEST(old.fence().ok());
  BOOST_TEST(next.load(9).ok());
  BOOST_TEST(next.fence().ok());
  BOOST_TEST(is_fenced(old.fence()));
  BOOST_TEST(is_fenced(old.load(7)));
  BOOST_TEST(is_fenced(old.load(8)));
  BOOST_TEST(is_fenced(old.shutdown()));
  BOOST_TEST(is_fenced(gateway.shutdown()));
  BOOST_TEST(next.load(9).ok());
  BOOST_TEST(next.shutdown().ok());
  BOOST_TEST(served.get().ok());
}

BOOST_AUTO_TEST_CASE(an_agent_obeys_the_newest_term) {
  const TemporaryFolder folder;
  const std::string path = (folder.path() / "agent.sock").string();
  auto listener = listen_unix(path);
  BOOST_TEST_REQUIRE(listener.ok());
  FakeAgent agent;
  AgentServer server(agent);
  auto served = std::async(std::launch::async,
                           [&, fd = listener->release()] { return server.run(UniqueFd(fd)); });
  {
    RpcThread thread = rpc_thread();
    AgentCaller old(thread, path), next(thread, path), none(thread, path);
    BOOST_TEST(none.kill().ok());  // as long as nobody has a term
    BOOST_TEST(old.lead(7).ok());
    BOOST_TEST(old.spawn().ok());
    BOOST_TEST(old.kill().ok());
    BOOST_TEST(is_fenced(none.kill()));
    BOOST_TEST(next.lead(9).ok());
    BOOST_TEST(is_fenced(old.kill()));
    BOOST_TEST(is_fenced(old.spawn()));
    BOOST_TEST(is_fenced(old.lead(8)));
    BOOST_TEST(is_fenced(none.lead(0)));
    BOOST_TEST(next.spawn().ok());
    BOOST_TEST(next.kill().ok());
    BOOST_TEST(agent.num_kills == 3);
  }
  server.stop();
  BOOST_TEST(served.get().ok());
}

}  // namespace chainpump::transport::rpc
