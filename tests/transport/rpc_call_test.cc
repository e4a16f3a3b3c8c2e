// Control calls over a socketpair against a handler that answers from other threads.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/test/unit_test.hpp>
#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <thread>

#include "transport/rpc/rank_client.h"
#include "transport/rpc/rank_server.h"

using namespace chainpump;
using namespace chainpump::transport::rpc;
using namespace std::chrono_literals;

namespace {

struct FakeRank final : RankHandler {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<uint64_t> cancelled;
  Reply<Ok> held_submit;
  ResultSinkHandle held_sink;
  Reply<RankStats> held_stats;
  Reply<Ok> held_watch;
  bool hold = false;
  Status push_after_full = ok_status();

  void on_load(LoadParams params, ProgressReport progress, Reply<LoadReport> reply) override {
    if (params.plan.model_path.empty())
      return reply(make_error(ErrorCode::bad_file, "tensor blk.3: [cut]\nsecond line"));
    std::thread([params, progress, reply = std::move(reply)]() mutable {
      progress(1, 2);
      LoadReport report;
      report.numerics_id = params.plan.kv.type + params.plan.stages.at(1).name;
      report.listen_port = 4242;
      reply(report);
    }).detach();
  }
  void on_connect(ConnectParams params, Reply<Ok> reply) override {
    if (params.links.size() == 1 && params.links[0].secret == ~0ull) return reply(Ok{});
  }
  void on_submit(GenerateRequest request, ResultSinkHandle sink, Reply<Ok> reply) override {
    if (hold) {
      const std::lock_guard lock(mutex);
      held_submit = std::move(reply);
      held_sink = sink;
      changed.notify_all();
      return;
    }
    for (size_t i = 0; i < request.prompt.size(); ++i) {
      TokenResult token;
      token.position = static_cast<int32_t>(i);
      token.token = request.prompt[i];
      token.top_logprobs = {{7, -0.5f}};
      push_after_full = sink.push(std::vector{token});
    }
    (void)sink.push(std::vector<ScoreResult>{{1, 2, -3.0f, 4}});
    reply(Ok{});
  }
  void on_cancel(uint64_t id, Reply<Ok> reply) override {
    const std::lock_guard lock(mutex);
    cancelled.push_back(id);
    changed.notify_all();
    reply(Ok{});
  }
  void on_stats(Reply<RankStats> reply) override { held_stats = std::move(reply); }
  void on_trace(uint64_t since, Reply<StepEvents> reply) override {
    const auto at = [](int64_t ns) { return TimePoint{Duration(ns)}; };
    reply(StepEvents{.events = {{MicrobatchId(9), 7, at(1), at(2), at(3), at(4), at(5), at(6)}},
                     .next = since + 1,
                     .lost = 3,
                     .now = at(8)});
  }
  void on_shutdown(Reply<Ok> reply) override { reply(Ok{}); }
  void on_watch(Reply<Ok> reply) override { held_watch = std::move(reply); }

  template <typename Condition>
  bool wait_for(Condition condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, 5s, condition);
  }
};

struct Fixture {
  explicit Fixture(RankServerOptions options = {}) {
    int fds[2];
    BOOST_REQUIRE_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    served = std::async(std::launch::async, [this, fd = fds[1], options] {
      return serve_rank(UniqueFd(fd), rank, options);
    });
    client = std::make_unique<RankClient>(thread, UniqueFd(fds[0]),
                                          [this](Error error) { lost.set_value(error); });
  }
  ~Fixture() { client.reset(); }

  template <typename T, typename Start>
  Result<T> call(Start start) {
    auto promise = std::make_shared<std::promise<Result<T>>>();
    auto future = promise->get_future();
    start([promise](Result<T> result) { promise->set_value(std::move(result)); });
    BOOST_REQUIRE(future.wait_for(10s) == std::future_status::ready);
    return future.get();
  }
  Result<HelloReply> hello() {
    return call<HelloReply>([&](auto done) { client->hello(5s, done); });
  }

  FakeRank rank;
  RpcThread thread = *RpcThread::create();
  std::promise<Error> lost;
  std::future<Status> served;
  std::unique_ptr<RankClient> client;
};

}  // namespace

BOOST_AUTO_TEST_CASE(every_method_answers) {
  Fixture f;
  BOOST_TEST(f.hello()->pid == getpid());
  LoadParams params;
  params.plan.model_path = "m";
  params.plan.kv.type = "bf16";
  params.plan.stages.resize(2);
  params.plan.stages[1].name = "tail";
  const auto report =
      f.call<LoadReport>([&](auto done) { f.client->load(params, 5s, nullptr, done); });
  BOOST_TEST(report->numerics_id == "bf16tail");
  BOOST_TEST(report->listen_port == 4242);
  ConnectParams links;
  links.links.push_back({1, "127.0.0.1", 99, ~0ull, 1});
  BOOST_TEST(f.call<Ok>([&](auto done) { f.client->connect(links, 5s, done); }).ok());

  GenerateRequest request;
  for (int i = 0; i < 10000; ++i) request.prompt.push_back(i * 3);
  std::vector<TokenResult> tokens;
  std::vector<ScoreResult> scores;
  const ResultCallbacks results{
      [&](std::vector<TokenResult> more) { tokens.insert(tokens.end(), more.begin(), more.end()); },
      [&](std::vector<ScoreResult> more) {
        scores.insert(scores.end(), more.begin(), more.end());
      }};
  BOOST_TEST(f.call<Ok>([&](auto done) { f.client->submit(request, 5s, results, done); }).ok());
  BOOST_REQUIRE_EQUAL(tokens.size(), 10000u);  // all before the answer, in order
  for (int i = 0; i < 10000; ++i) BOOST_REQUIRE_EQUAL(tokens[static_cast<size_t>(i)].token, i * 3);
  BOOST_TEST(scores.size() == 1u);
  BOOST_TEST(f.call<Ok>([&](auto done) { f.client->cancel(8, 5s, done); }).ok());
  BOOST_TEST(f.call<Ok>([&](auto done) { f.client->shutdown(5s, done); }).ok());
  BOOST_TEST(f.served.get().ok());
}

BOOST_AUTO_TEST_CASE(errors_keep_code_and_text) {
  Fixture f;
  const auto early = f.call<Ok>([&](auto done) { f.client->cancel(1, 5s, done); });
  BOOST_TEST((early.error().code == ErrorCode::invalid_argument));
  BOOST_REQUIRE(f.hello().ok());
  const auto bad = f.call<LoadReport>([&](auto done) { f.client->load({}, 5s, nullptr, done); });
  BOOST_TEST((bad.error().code == ErrorCode::bad_file));
  BOOST_TEST(bad.error().message == "tensor blk.3: [cut]\nsecond line");
  const auto dropped = f.call<Ok>([&](auto done) { f.client->connect({}, 5s, done); });
  BOOST_TEST((dropped.error().code == ErrorCode::internal));
  const auto late = f.call<RankStats>([&](auto done) { f.client->stats(30ms, done); });
  BOOST_TEST((late.error().code == ErrorCode::deadline_exceeded));
}

BOOST_AUTO_TEST_CASE(another_build_is_refused_by_name) {
  Fixture f({.build = "9.9+other"});
  const auto refused = f.hello();
  BOOST_TEST((refused.error().code == ErrorCode::invalid_argument));
  BOOST_TEST(refused.error().message.find("9.9+other") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_dropped_submit_is_cancelled_and_its_sink_closed) {
  Fixture f({.build = "", .sink_results_max = 4});
  BOOST_REQUIRE(f.hello().ok());
  f.rank.hold = true;
  GenerateRequest request;
  request.request_id = 77;
  const auto late = f.call<Ok>([&](auto done) { f.client->submit(request, 50ms, {}, done); });
  BOOST_TEST((late.error().code == ErrorCode::deadline_exceeded));
  BOOST_TEST(f.rank.wait_for([&] { return f.rank.cancelled == std::vector<uint64_t>{77}; }));
  BOOST_TEST(
      (f.rank.held_sink.push(std::vector<TokenResult>(5)).error().code == ErrorCode::disconnected));
}

BOOST_AUTO_TEST_CASE(a_full_sink_says_overloaded) {
  Fixture f({.build = "", .sink_results_max = 4});
  BOOST_REQUIRE(f.hello().ok());
  f.rank.hold = true;
  f.client->submit({}, 5s, {}, [](Result<Ok>) {});
  BOOST_REQUIRE(f.rank.wait_for([&] { return !f.rank.held_submit.answered(); }));
  BOOST_TEST(
      (f.rank.held_sink.push(std::vector<TokenResult>(5)).error().code == ErrorCode::overloaded));
  BOOST_TEST(f.rank.held_sink.push(std::vector<TokenResult>(4)).ok());
}

BOOST_AUTO_TEST_CASE(a_trace_comes_back_whole) {
  Fixture f;
  BOOST_REQUIRE(f.hello().ok());
  const auto part = f.call<StepEvents>([&](auto done) { f.client->trace(1ull << 40, 5s, done); });
  BOOST_REQUIRE(part.ok());
  BOOST_REQUIRE_EQUAL(part->events.size(), 1u);
  const auto at = [](int64_t ns) { return TimePoint{Duration(ns)}; };
  BOOST_TEST(
      (part->events[0] == StepEvent{MicrobatchId(9), 7, at(1), at(2), at(3), at(4), at(5), at(6)}));
  BOOST_TEST(part->next == (1ull << 40) + 1);
  BOOST_TEST(part->lost == 3u);
  BOOST_TEST((part->now == at(8)));
}

BOOST_AUTO_TEST_CASE(a_watch_lasts_until_it_is_answered) {
  Fixture f;
  BOOST_REQUIRE(f.hello().ok());
  std::promise<Error> broken;
  f.client->watch([&](Result<Ok> end) { broken.set_value(end.error()); });
  BOOST_TEST(f.call<Ok>([&](auto done) { f.client->cancel(1, 5s, done); }).ok());  // it has come
  f.rank.held_watch(make_error(ErrorCode::no_room, "the disk is full"));
  auto told = broken.get_future();
  BOOST_REQUIRE(told.wait_for(5s) == std::future_status::ready);
  const Error why = told.get();
  BOOST_TEST((why.code == ErrorCode::no_room));
  BOOST_TEST(why.message == "the disk is full");
}

// Results that are pushed at any moment, the one when the pump has just found nothing included,
// come before the answer, each once.
BOOST_AUTO_TEST_CASE(no_result_is_lost_however_pushes_fall) {
  constexpr size_t kPushes = 200;
  for (size_t round = 0; round < 60; ++round) {
    Fixture f;
    BOOST_REQUIRE(f.hello().ok());
    f.rank.hold = true;
    std::atomic<size_t> num_arrived = 0;
    std::promise<size_t> arrived_at_end;
    f.client->submit({}, 30s,
                     {.on_tokens = [&](std::vector<TokenResult> t) { num_arrived += t.size(); },
                      .on_scores = {}},
                     [&](Result<Ok>) { arrived_at_end.set_value(num_arrived); });
    BOOST_REQUIRE(f.rank.wait_for([&] { return !f.rank.held_submit.answered(); }));
    for (size_t i = 0; i < kPushes; ++i) {
      BOOST_REQUIRE(f.rank.held_sink.push(std::vector<TokenResult>(1)).ok());
      // A gap of another length each time: it falls on every stage of the pump's round.
      const TimePoint until = steady_clock().now() + Duration((i * 37 + round * 911) % 60'000);
      while (steady_clock().now() < until) continue;
    }
    f.rank.held_submit(Ok{});
    auto end = arrived_at_end.get_future();
    BOOST_REQUIRE(end.wait_for(10s) == std::future_status::ready);
    BOOST_TEST(end.get() == kPushes);
  }
}

// Goal: a token crosses from the stage's thread to the callback in 50 us at the median.
BOOST_AUTO_TEST_CASE(a_result_takes_microseconds) {
  Fixture f;
  BOOST_REQUIRE(f.hello().ok());
  f.rank.hold = true;
  std::mutex mutex;
  std::condition_variable changed;
  TimePoint arrived;
  size_t num_arrived = 0;
  f.client->submit({}, 30s,
                   {.on_tokens =
                        [&](std::vector<TokenResult> tokens) {
                          const std::lock_guard lock(mutex);
                          arrived = steady_clock().now();
                          num_arrived += tokens.size();
                          changed.notify_all();
                        },
                    .on_scores = {}},
                   [](Result<Ok>) {});
  BOOST_REQUIRE(f.rank.wait_for([&] { return !f.rank.held_submit.answered(); }));
  std::vector<double> times_us;
  for (size_t i = 0; i < 500; ++i) {
    const TimePoint pushed = steady_clock().now();
    BOOST_REQUIRE(f.rank.held_sink.push(std::vector<TokenResult>(1)).ok());
    std::unique_lock lock(mutex);
    BOOST_REQUIRE(changed.wait_for(lock, 5s, [&] { return num_arrived == i + 1; }));
    times_us.push_back(to_ms(arrived - pushed) * 1000);
  }
  std::sort(times_us.begin(), times_us.end());
  BOOST_TEST_MESSAGE("push to callback: p50 " << times_us[250] << " us, p99 " << times_us[495]
                                              << " us");
}

BOOST_AUTO_TEST_CASE(a_lost_rank_fails_open_calls) {
  int fds[2];
  BOOST_REQUIRE_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  RpcThread thread = *RpcThread::create();
  std::promise<Error> lost, failed;
  RankClient client(thread, UniqueFd(fds[0]), [&](Error error) { lost.set_value(error); });
  client.hello(5s, [&](Result<HelloReply> reply) { failed.set_value(reply.error()); });
  close(fds[1]);
  BOOST_TEST((failed.get_future().get().code == ErrorCode::disconnected));
  BOOST_TEST((lost.get_future().get().code == ErrorCode::disconnected));
}

BOOST_AUTO_TEST_CASE(hostile_bytes_end_the_connection) {
  const std::vector<std::vector<uint32_t>> inputs = {{0xffffffff, 1},
                                                     {100000, 1},
                                                     {0, 0x7fffffff},
                                                     {1, 0xffffffff, 0xffffffff, 0},
                                                     {0, 1, 0xdeadbeef, 0xffffffff}};
  for (const auto& input : inputs) {
    int fds[2];
    BOOST_REQUIRE_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    const UniqueFd ours(fds[0]);
    FakeRank rank;
    auto served =
        std::async(std::launch::async, [&] { return serve_rank(UniqueFd(fds[1]), rank); });
    BOOST_REQUIRE_GT(write(ours.get(), input.data(), input.size() * 4), 0);
    BOOST_REQUIRE(served.wait_for(5s) == std::future_status::ready);
    BOOST_TEST(!served.get().ok());
  }
}
