// A runtime that uses a service whose lanes get other first ranks: it hears of that from the
// coordinator, and goes there. Coordinator and ranks are this test's own, over real sockets.
#include <sys/socket.h>

#include <future>
#include <thread>

#include "actors/convert.h"
#include "actors/service_folder.h"
#include "tests/actors/local_runtime.h"
#include "transport/rpc/coordinator_server.h"
#include "transport/rpc/rank_server.h"
#include "transport/rpc/service_file.h"
#include "transport/rpc/unix_socket.h"

namespace chainpump::actors {

namespace rpc = transport::rpc;

namespace {

/// Takes one request and says of it what the test wants.
class OneRequestRank final : public rpc::RankHandler {
 public:
  explicit OneRequestRank(const std::string& path) {
    int fds[2];
    BOOST_REQUIRE_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    control_ = UniqueFd(fds[0]);
    Result<UniqueFd> listener = rpc::listen_unix(path);
    BOOST_REQUIRE(listener.ok());
    served_ = std::async(std::launch::async, [this, fd = fds[1], of = listener->release()] {
      return rpc::serve_rank(UniqueFd(fd), UniqueFd(of), *this);
    });
  }
  ~OneRequestRank() override { die(); }
  void die() {
    control_.reset();
    if (served_.valid()) BOOST_TEST(served_.get().ok());
  }
  rpc::GenerateRequest request() {
    auto asked = asked_.get_future();
    BOOST_REQUIRE(asked.wait_for(kPatience) == std::future_status::ready);
    return asked.get();
  }
  /// Tokens of these positions; with the last the end.
  void say(const rpc::GenerateRequest& request, int32_t begin, int32_t end, bool last) {
    rpc::LaneResults results;
    for (int32_t position = begin; position < end; ++position) {
      rpc::TokenResult token;
      token.request_id = request.request_id;
      token.position = position;
      token.token = 10 + position;
      if (last && position + 1 == end) token.finish = rpc::FinishReason::length;
      results.tokens.push_back(token);
    }
    if (last) results.ends.push_back({request.request_id, 0, ok_status()});
    BOOST_TEST(sink_.push(std::move(results)).ok());
  }

  void on_attach(uint64_t, uint8_t, rpc::ResultSinkHandle sink, rpc::Reply<Ok> reply) override {
    sink_ = std::move(sink);
    reply(Ok{});
  }
  void on_submit(uint64_t, std::vector<rpc::GenerateRequest> requests,
                 rpc::Reply<Ok> reply) override {
    reply(Ok{});
    for (rpc::GenerateRequest& each : requests) asked_.set_value(std::move(each));
  }
  void on_watch(bool, rpc::Reply<Ok> reply) override { watch_ = std::move(reply); }
  void on_trace(uint64_t, rpc::Reply<StepEvents>) override {}
  void on_cancel(uint64_t, std::vector<uint64_t>, rpc::Reply<Ok> reply) override { reply(Ok{}); }
  void on_load(rpc::LoadParams, rpc::ProgressReport, rpc::Reply<rpc::LoadReport>) override {}
  void on_connect(rpc::ConnectParams, rpc::Reply<Ok>) override {}
  void on_detach(uint64_t) override {}
  void on_stats(rpc::Reply<rpc::RankStats>) override {}
  void on_shutdown(rpc::Reply<Ok>) override {}
  rpc::BeatReply on_beat() override { return {}; }
  void on_fence(uint8_t, uint32_t, rpc::Reply<rpc::StageHoldings>) override {}
  void on_resume(uint8_t, uint32_t, std::vector<rpc::StageHoldings>, rpc::Reply<Ok>) override {}
  void on_arm(const transport::FaultOrder&, rpc::Reply<Ok>) override {}
  void on_take_in(rpc::KvCopy, rpc::Reply<rpc::KvAddress>) override {}
  void on_copy(rpc::KvCopy, rpc::ProgressReport, rpc::Reply<Ok>) override {}
  void on_finish_copy(rpc::Reply<Ok>) override {}

 private:
  UniqueFd control_;
  rpc::ResultSinkHandle sink_;
  rpc::Reply<Ok> watch_;
  std::promise<rpc::GenerateRequest> asked_;
  std::future<Status> served_;
};

/// A service's folder, with a coordinator that says what the test wants.
class FakeService final : public rpc::CoordinatorHandler {
 public:
  explicit FakeService(const graph::Plan& plan) {
    BOOST_REQUIRE(rpc::write_service_file(plan_file(path),
                                          {.plan = to_wire(plan), .isa = "", .cache_folder = ""})
                      .ok());
    Result<UniqueFd> listener = rpc::listen_unix(coordinator_socket(path));
    BOOST_REQUIRE(listener.ok());
    served_ = std::async(std::launch::async,
                         [this, fd = listener->release()] { return server.run(UniqueFd(fd)); });
  }
  ~FakeService() override {
    server.set_stopped();
    BOOST_TEST(served_.get().ok());
  }
  void on_stats(rpc::Reply<std::vector<rpc::RankStats>> reply) override {
    reply(std::vector<rpc::RankStats>(1));
  }
  void on_stop() override {}
  void on_beat(rpc::Reply<Ok> reply) override { reply(Ok{}); }
  void on_move(uint32_t, rpc::OnMoveProgress, rpc::Reply<Ok>) override {}
  void on_change(rpc::ServiceSpec, rpc::OnMoveProgress, rpc::Reply<Ok>) override {}
  void on_trace(uint32_t rank, uint64_t since, rpc::Reply<StepEvents> reply) override {
    reply(StepEvents{.events = {}, .next = 100 * rank + since, .lost = 0, .now = {}});
  }

  TemporaryFolder folder;
  const std::string path = folder.path();
  rpc::CoordinatorServer server{*this};

 private:
  std::future<Status> served_;
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_request_goes_on_where_the_coordinator_says) {
  const Model model;
  const graph::Plan plan = plan_for(model.path(), 1);
  FakeService service(plan);
  const std::string old_path = rank_socket(service.path, RankId(0));
  const std::string new_path = rank_socket(service.path, RankId(5));
  auto old_rank = std::make_unique<OneRequestRank>(old_path);
  Result<std::unique_ptr<Runtime>> attached = Runtime::attach(service.path, {});
  BOOST_REQUIRE_MESSAGE(attached.ok(), fakes::why(attached));
  Runtime& runtime = **attached;
  service.server.set_serving("n", {{old_path, 1}});
  const Status ready = runtime.wait_ready(kPatience);
  BOOST_REQUIRE_MESSAGE(ready.ok(), fakes::why(ready));
  BOOST_TEST(runtime.trace(RankId(3), 1, kPatience)->next == 301u);
  Listener listener, waiting;
  runtime.submit(request(3, 6), kPatience, listener.callbacks());
  const rpc::GenerateRequest first = old_rank->request();
  old_rank->say(first, 3, 5, false);
  BOOST_REQUIRE(listener.wait_tokens(2));

  old_rank->die();
  // One rank that has died before anybody could go there, then one that serves.
  service.server.set_serving("n", {{rank_socket(service.path, RankId(4)), 2}});
  OneRequestRank new_rank(new_path);
  service.server.set_serving("n", {{new_path, 3}});
  const rpc::GenerateRequest again = new_rank.request();
  BOOST_TEST((again.generated == std::vector<int32_t>{13, 14}));
  BOOST_TEST(again.readmitted);
  new_rank.say(again, 5, 9, true);
  const Result<Ok> end = listener.wait_end();
  BOOST_REQUIRE_MESSAGE(end.ok(), fakes::why(end));
  BOOST_TEST((listener.tokens == std::vector<TokenId>{13, 14, 15, 16, 17, 18}));
  BOOST_TEST(runtime.report(kPatience).ok());
  runtime.stop();
  BOOST_TEST(listener.num_ends == 1);
}

// Nobody can come to the lane when the runtime is ready: what is asked waits, until the coordinator
// gives up.
BOOST_AUTO_TEST_CASE(what_waits_for_a_lane_ends_with_the_service) {
  const Model model;
  FakeService service(plan_for(model.path(), 1));
  Result<std::unique_ptr<Runtime>> runtime = Runtime::attach(service.path, {});
  BOOST_REQUIRE_MESSAGE(runtime.ok(), fakes::why(runtime));
  service.server.set_serving("n", {{rank_socket(service.path, RankId(0)), 1}});
  BOOST_REQUIRE((*runtime)->wait_ready(kPatience).ok());
  Listener listener, expired;
  (*runtime)->submit(request(3, 6), kPatience, listener.callbacks());
  (*runtime)->submit(request(3, 6), std::chrono::milliseconds(20), expired.callbacks());
  BOOST_TEST((expired.wait_end().error().code == ErrorCode::deadline_exceeded));
  service.server.set_failed(make_error(ErrorCode::internal, "stage 'a' died: six times in 60 s"));
  BOOST_TEST(listener.wait_end().error().message == "stage 'a' died: six times in 60 s");
}

}  // namespace chainpump::actors
