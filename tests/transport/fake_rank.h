// A rank that answers control calls from other threads and keeps what it was asked, served over a
// socketpair, and its client. For the tests of transport/rpc.
#pragma once

#include <sys/socket.h>

#include <boost/test/unit_test.hpp>
#include <condition_variable>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "transport/rpc/rank_client.h"
#include "transport/rpc/rank_server.h"

namespace chainpump::transport::rpc {

inline constexpr Duration kPatience = std::chrono::seconds(10);

struct FakeRank final : RankHandler {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::pair<uint64_t, uint64_t>> cancelled;  // client, request
  std::vector<uint64_t> detached;
  std::map<uint64_t, ResultSinkHandle> sinks;
  std::map<uint64_t, uint8_t> lanes;  // by client
  Reply<RankStats> held_stats;
  Reply<Ok> held_watch;
  bool watches_links = false;
  uint32_t connect_epoch = 0;
  std::vector<StageHoldings> resumed;  // with what, at the epoch below
  uint32_t resume_epoch = 0;
  FaultOrder armed;
  KvCopy copy;
  Reply<Ok> copying;

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
    connect_epoch = params.epoch;
    if (params.links.size() == 1 && params.links[0].secret == ~0ull) return reply(Ok{});
  }
  void on_attach(uint64_t client, uint8_t lane, ResultSinkHandle given, Reply<Ok> reply) override {
    const std::lock_guard lock(mutex);
    lanes[client] = lane;
    sinks[client] = given;
    reply(Ok{});
    changed.notify_all();
  }
  void on_submit(uint64_t client, std::vector<GenerateRequest> requests, Reply<Ok> reply) override {
    for (const GenerateRequest& request : requests) {
      LaneResults results;
      for (size_t i = 0; i < request.prompt.size(); ++i) {
        TokenResult token;
        token.request_id = request.request_id;
        token.position = static_cast<int32_t>(i);
        token.token = request.prompt[i];
        token.top_logprobs = {{7, -0.5f}};
        results.tokens.push_back(token);
      }
      results.scores.push_back({request.request_id, 1, 2, -3.0f, 4});
      results.ends.push_back({request.request_id, request.sequence_index,
                              make_error(ErrorCode::no_room, "[the] end")});
      results.stats = {.num_taken = request.request_id, .queue_room = 9, .tokens_per_s = 0.5};
      (void)sinks.at(client).push(std::move(results));
      last_submitted = request;
    }
    reply(Ok{});
  }
  GenerateRequest last_submitted;
  void on_cancel(uint64_t client, std::vector<uint64_t> ids, Reply<Ok> reply) override {
    const std::lock_guard lock(mutex);
    for (const uint64_t id : ids) cancelled.emplace_back(client, id);
    changed.notify_all();
    reply(Ok{});
  }
  void on_detach(uint64_t client) override {
    const std::lock_guard lock(mutex);
    detached.push_back(client);
    changed.notify_all();
  }
  void on_stats(Reply<RankStats> reply) override { held_stats = std::move(reply); }
  void on_trace(uint64_t since, Reply<StepEvents> reply) override {
    const auto at = [](int64_t ns) { return TimePoint{Duration(ns)}; };
    reply(StepEvents{.events = {{MicrobatchId(9), 3, 7, at(1), at(2), at(3), at(4), at(5), at(6)}},
                     .next = since + 1,
                     .lost = 3,
                     .now = at(8)});
  }
  void on_shutdown(Reply<Ok> reply) override { reply(Ok{}); }
  void on_watch(bool of_links, Reply<Ok> reply) override {
    watches_links = of_links;
    held_watch = std::move(reply);
  }
  BeatReply on_beat() override {
    return {.count = UINT64_MAX - 7, .links = {{3, 4, true, 5, 6, 7}, {.edge = 8}}};
  }
  /// What it holds is what it was asked.
  void on_fence(uint8_t lane, uint32_t epoch, Reply<StageHoldings> reply) override {
    if (epoch == 0) return reply(make_error(ErrorCode::invalid_argument, "epoch 0 is over"));
    reply(StageHoldings{.stage = lane,
                        .sequences = {epoch, UINT64_MAX},
                        .held_positions = {7, INT32_MAX},
                        .blocks = {3},
                        .logged_positions = {16}});
  }
  void on_arm(const FaultOrder& fault, Reply<Ok> reply) override {
    armed = fault;
    reply(Ok{});
  }
  void on_take_in(KvCopy given, Reply<KvAddress> reply) override {
    copy = std::move(given);
    reply(KvAddress{"here", 65534});
  }
  void on_copy(KvCopy given, ProgressReport progress, Reply<Ok> reply) override {
    copy = std::move(given);
    progress(3, 7);
    copying = std::move(reply);
  }
  void on_finish_copy(Reply<Ok> reply) override {
    copying(Ok{});
    reply(Ok{});
  }
  void on_resume(uint8_t lane, uint32_t epoch, std::vector<StageHoldings> stages,
                 Reply<Ok> reply) override {
    if (lane != 5)
      return reply(make_error(ErrorCode::invalid_argument, "lane {} is at work", lane));
    resume_epoch = epoch;
    resumed = std::move(stages);
    reply(Ok{});
  }

  template <typename Condition>
  bool wait_for(Condition condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kPatience, condition);
  }
};

struct Fixture {
  explicit Fixture(RankServerOptions options = {}) {
    int fds[2];
    BOOST_REQUIRE_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    served = std::async(std::launch::async, [this, fd = fds[1], options] {
      return serve_rank(UniqueFd(fd), UniqueFd(), rank, options);
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
    BOOST_REQUIRE(future.wait_for(kPatience) == std::future_status::ready);
    return future.get();
  }
  Result<HelloReply> hello() {
    return call<HelloReply>([&](auto done) { client->hello(kPatience, done); });
  }
  /// Says hello and attaches; returns the rank's way back.
  ResultSinkHandle attach(std::function<void(LaneResults)> on_results) {
    BOOST_REQUIRE(hello().ok());
    BOOST_REQUIRE(
        call<Ok>([&](auto done) { client->attach(0, on_results, kPatience, done); }).ok());
    return rank.sinks.at(1);
  }

  FakeRank rank;
  RpcThread thread = *RpcThread::create();
  std::promise<Error> lost;
  std::future<Status> served;
  std::unique_ptr<RankClient> client;
};

}  // namespace chainpump::transport::rpc
