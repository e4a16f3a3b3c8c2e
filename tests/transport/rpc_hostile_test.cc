// Bytes that no peer of ours would send, both ways: garbage, and true conversations cut short or
// with bytes changed. Whatever comes, nobody crashes, and everybody who waits is answered.
#include <boost/test/unit_test.hpp>
#include <future>
#include <random>

#include "tests/fakes/wiretap.h"
#include "transport/rpc/rank_client.h"
#include "transport/rpc/rank_server.h"

using namespace chainpump;
using namespace chainpump::transport::rpc;
using namespace std::chrono_literals;

namespace {

constexpr int kNumInputs = 1000;  // each way

/// Answers everything at once.
struct QuickRank final : RankHandler {
  void on_load(LoadParams, ProgressReport progress, Reply<LoadReport> reply) override {
    progress(1, 1);
    reply(LoadReport{});
  }
  void on_connect(ConnectParams, Reply<Ok> reply) override { reply(Ok{}); }
  void on_attach(uint64_t, uint8_t, ResultSinkHandle given, Reply<Ok> reply) override {
    sink = given;
    reply(Ok{});
  }
  void on_submit(uint64_t, std::vector<GenerateRequest>, Reply<Ok> reply) override {
    (void)sink.push({.tokens = std::vector<TokenResult>(3), .scores = {}, .ends = {RequestEnd{}}});
    reply(Ok{});
  }
  void on_cancel(uint64_t, std::vector<uint64_t>, Reply<Ok> reply) override { reply(Ok{}); }
  void on_detach(uint64_t) override {}
  void on_stats(Reply<RankStats> reply) override { reply(RankStats{}); }
  void on_trace(uint64_t, Reply<StepEvents> reply) override { reply(StepEvents{}); }
  void on_shutdown(Reply<Ok> reply) override { reply(Ok{}); }
  void on_watch(bool, Reply<Ok>) override {}
  BeatReply on_beat() override { return {.count = 7}; }
  void on_fence(uint8_t lane, uint32_t, Reply<StageHoldings> reply) override {
    reply(StageHoldings{.stage = lane,
                        .sequences = {1, 2},
                        .held_positions = {3, 4},
                        .blocks = {5},
                        .logged_positions = {6}});
  }
  void on_resume(uint8_t, uint32_t, std::vector<StageHoldings>, Reply<Ok> reply) override {
    reply(Ok{});
  }
  void on_arm(const transport::FaultOrder&, Reply<Ok> reply) override { reply(Ok{}); }
  void on_take_in(KvCopy, Reply<KvAddress> reply) override { reply(KvAddress{}); }
  void on_copy(KvCopy, ProgressReport, Reply<Ok> reply) override { reply(Ok{}); }
  void on_finish_copy(Reply<Ok> reply) override { reply(Ok{}); }
  ResultSinkHandle sink;
};

/// What both sides say in a conversation of all the calls.
fakes::Wiretap conversation() {
  auto [client_socket, client_tap] = fakes::connected_sockets();
  auto [rank_tap, rank_socket] = fakes::connected_sockets();
  QuickRank rank;
  auto served = std::async(std::launch::async, [&rank, fd = rank_socket.release()] {
    return serve_rank(UniqueFd(fd), UniqueFd(), rank);
  });
  fakes::Wiretap tap;
  std::thread carrier([&, client = std::move(client_tap), server = std::move(rank_tap)] {
    tap.run(client, server);
  });
  {
    RpcThread thread = *RpcThread::create();
    std::promise<void> done;
    RankClient client(thread, std::move(client_socket), [](const Error&) {});
    LoadParams params;
    params.plan.stages.resize(2);
    client.hello(5s, [](const auto&) {});
    client.load(params, 5s, nullptr, [](const auto&) {});
    client.attach(0, {}, 5s, [](const auto&) {});
    client.submit(0, {GenerateRequest{}}, 5s, [](const auto&) {});
    client.cancel(0, {0}, 5s, [](const auto&) {});
    client.fence(0, 2, 5s, [](const auto&) {});
    client.resume(0, 2, {StageHoldings{}}, 5s, [](const auto&) {});
    client.arm({}, 5s, [](const auto&) {});
    client.stats(5s, [&](const auto&) { done.set_value(); });
    BOOST_REQUIRE(done.get_future().wait_for(5s) == std::future_status::ready);
  }
  carrier.join();
  BOOST_REQUIRE(served.wait_for(5s) == std::future_status::ready);
  BOOST_REQUIRE_GT(tap.from_client.size(), 200u);
  BOOST_REQUIRE_GT(tap.from_server.size(), 100u);
  return tap;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_rank_survives_what_a_caller_sends) {
  const fakes::Bytes good = conversation().from_client;
  std::mt19937 random(11);
  for (int i = 0; i < kNumInputs; ++i) {
    auto [ours, theirs] = fakes::connected_sockets();
    QuickRank rank;
    fakes::say(ours, fakes::hostile(good, random));
    auto served = std::async(std::launch::async, [&rank, fd = theirs.release()] {
      return serve_rank(UniqueFd(fd), UniqueFd(), rank);
    });
    BOOST_REQUIRE_MESSAGE(served.wait_for(5s) == std::future_status::ready, "input " << i);
  }
}

// Whole messages, whose first pointer is not one to a Message. The caller goes on listening, so
// what ends the connection is the rank.
BOOST_AUTO_TEST_CASE(a_root_that_is_no_message_is_refused) {
  const std::vector<std::vector<uint32_t>> broken = {
      {0, 0},                          // one segment of nothing
      {0, 1, 0x7ffffffc, 0xffffffff},  // a struct beyond the end
      {0, 1, 0xfffffff8, 0x00010001},  // and before the begin
      {0, 1, 0xfffffffc, 0x00010001},  // on top of its own pointer, and beyond the end
      {0, 1, 1, 0xffffffff},           // a list
      {0, 1, 3, 0},                    // a capability
      {0, 1, 2, 7},                    // in a segment that is not there
      {0, 2, 2, 0, 6, 0},              // a far pointer to itself
  };
  for (const std::vector<uint32_t>& words : broken) {
    auto [ours, theirs] = fakes::connected_sockets();
    QuickRank rank;
    const auto* bytes = reinterpret_cast<const char*>(words.data());
    fakes::say(ours, fakes::Bytes(bytes, bytes + words.size() * sizeof(uint32_t)));
    auto served = std::async(std::launch::async, [&rank, fd = theirs.release()] {
      return serve_rank(UniqueFd(fd), UniqueFd(), rank);
    });
    const auto index = &words - broken.data();
    BOOST_REQUIRE_MESSAGE(served.wait_for(5s) == std::future_status::ready, "message " << index);
    const Status status = served.get();
    BOOST_TEST(!status.ok(), "message " << index);
    if (!status.ok()) BOOST_TEST_MESSAGE(index << ": " << status.error().message);
  }
}

BOOST_AUTO_TEST_CASE(a_caller_survives_what_a_rank_sends) {
  const fakes::Bytes good = conversation().from_server;
  std::mt19937 random(12);
  RpcThread thread = *RpcThread::create();
  for (int i = 0; i < kNumInputs; ++i) {
    auto [ours, theirs] = fakes::connected_sockets();
    std::promise<void> hello, submitted;
    int num_tokens = 0;
    RankClient client(thread, std::move(theirs), [](const Error&) {});
    client.hello(5s, [&](const auto&) { hello.set_value(); });
    client.attach(
        0, [&](const LaneResults& more) { num_tokens += more.tokens.size(); }, 5s,
        [](const auto&) {});
    client.submit(0, {GenerateRequest{}}, 5s, [&](const auto&) { submitted.set_value(); });
    fakes::say(ours, fakes::hostile(good, random));
    ours.reset();
    BOOST_REQUIRE_MESSAGE(hello.get_future().wait_for(5s) == std::future_status::ready,
                          "hello, input " << i);
    BOOST_REQUIRE_MESSAGE(submitted.get_future().wait_for(5s) == std::future_status::ready,
                          "submit, input " << i);
  }
}
