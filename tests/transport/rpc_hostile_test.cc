// Bytes that no peer of ours would send, both ways: garbage, and true conversations cut short or
// with bytes changed. Whatever comes, nobody crashes, and everybody who waits is answered.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <future>
#include <random>

#include "transport/rpc/rank_client.h"
#include "transport/rpc/rank_server.h"

using namespace chainpump;
using namespace chainpump::transport::rpc;
using namespace std::chrono_literals;

namespace {

constexpr int kNumInputs = 1000;  // each way
using Bytes = std::vector<char>;

/// Answers everything at once.
struct QuickRank final : RankHandler {
  void on_load(LoadParams, ProgressReport progress, Reply<LoadReport> reply) override {
    progress(1, 1);
    reply(LoadReport{});
  }
  void on_connect(ConnectParams, Reply<Ok> reply) override { reply(Ok{}); }
  void on_submit(GenerateRequest, ResultSinkHandle sink, Reply<Ok> reply) override {
    (void)sink.push(std::vector<TokenResult>(3));
    reply(Ok{});
  }
  void on_cancel(uint64_t, Reply<Ok> reply) override { reply(Ok{}); }
  void on_stats(Reply<RankStats> reply) override { reply(RankStats{}); }
  void on_trace(uint64_t, Reply<StepEvents> reply) override { reply(StepEvents{}); }
  void on_shutdown(Reply<Ok> reply) override { reply(Ok{}); }
  void on_watch(Reply<Ok>) override {}
};

std::pair<UniqueFd, UniqueFd> sockets() {
  int fds[2];
  BOOST_REQUIRE_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

/// Carries what comes from one socket to the other, and keeps it, until an end is closed.
struct Wiretap {
  Bytes from_client, from_rank;
  void run(const UniqueFd& client, const UniqueFd& rank) {
    pollfd both[2] = {{client.get(), POLLIN, 0}, {rank.get(), POLLIN, 0}};
    while (poll(both, 2, 5000) > 0) {
      for (const int side : {0, 1}) {
        if (both[side].revents == 0) continue;
        char buffer[4096];
        const ssize_t got = read(both[side].fd, buffer, sizeof buffer);
        if (got <= 0) return;
        Bytes& kept = side == 0 ? from_client : from_rank;
        kept.insert(kept.end(), buffer, buffer + got);
        BOOST_REQUIRE_EQUAL(write(both[1 - side].fd, buffer, static_cast<size_t>(got)), got);
      }
    }
  }
};

/// What both sides say in a conversation of all the calls.
Wiretap conversation() {
  auto [client_socket, client_tap] = sockets();
  auto [rank_tap, rank_socket] = sockets();
  QuickRank rank;
  auto served = std::async(std::launch::async, [&rank, fd = rank_socket.release()] {
    return serve_rank(UniqueFd(fd), rank);
  });
  Wiretap tap;
  std::thread carrier([&, client = std::move(client_tap), server = std::move(rank_tap)] {
    tap.run(client, server);
  });
  {
    RpcThread thread;
    std::promise<void> done;
    RankClient client(thread, std::move(client_socket), [](const Error&) {});
    LoadParams params;
    params.plan.stages.resize(2);
    client.hello(5s, [](const auto&) {});
    client.load(params, 5s, nullptr, [](const auto&) {});
    client.submit(GenerateRequest{}, 5s, {}, [](const auto&) {});
    client.stats(5s, [&](const auto&) { done.set_value(); });
    BOOST_REQUIRE(done.get_future().wait_for(5s) == std::future_status::ready);
  }
  carrier.join();
  BOOST_REQUIRE(served.wait_for(5s) == std::future_status::ready);
  BOOST_REQUIRE_GT(tap.from_client.size(), 200u);
  BOOST_REQUIRE_GT(tap.from_rank.size(), 100u);
  return tap;
}

Bytes hostile(const Bytes& good, std::mt19937& random) {
  const auto below = [&](size_t n) { return random() % n; };
  const auto some_byte = [&] { return static_cast<char>(random()); };
  if (below(4) == 0) {
    Bytes noise(1 + below(300));
    for (char& byte : noise) byte = some_byte();
    return noise;
  }
  Bytes bytes = good;
  for (size_t changes = below(6); changes > 0; --changes)
    bytes[below(bytes.size())] = below(2) ? some_byte() : static_cast<char>(0xff * below(2));
  if (below(2) == 0) bytes.resize(1 + below(bytes.size()));
  return bytes;
}

/// Writes, without waiting for a peer that no longer reads, and says that nothing follows.
void say(const UniqueFd& socket, const Bytes& bytes) {
  (void)send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  shutdown(socket.get(), SHUT_WR);
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_rank_survives_what_a_caller_sends) {
  const Bytes good = conversation().from_client;
  std::mt19937 random(11);
  for (int i = 0; i < kNumInputs; ++i) {
    auto [ours, theirs] = sockets();
    QuickRank rank;
    say(ours, hostile(good, random));
    auto served = std::async(std::launch::async, [&rank, fd = theirs.release()] {
      return serve_rank(UniqueFd(fd), rank);
    });
    BOOST_REQUIRE_MESSAGE(served.wait_for(5s) == std::future_status::ready, "input " << i);
  }
}

BOOST_AUTO_TEST_CASE(a_caller_survives_what_a_rank_sends) {
  const Bytes good = conversation().from_rank;
  std::mt19937 random(12);
  RpcThread thread;
  for (int i = 0; i < kNumInputs; ++i) {
    auto [ours, theirs] = sockets();
    std::promise<void> hello, submitted;
    int num_tokens = 0;
    RankClient client(thread, std::move(theirs), [](const Error&) {});
    client.hello(5s, [&](const auto&) { hello.set_value(); });
    client.submit(
        GenerateRequest{}, 5s,
        {.on_tokens = [&](const auto& more) { num_tokens += more.size(); }, .on_scores = {}},
        [&](const auto&) { submitted.set_value(); });
    say(ours, hostile(good, random));
    ours.reset();
    BOOST_REQUIRE_MESSAGE(hello.get_future().wait_for(5s) == std::future_status::ready,
                          "hello, input " << i);
    BOOST_REQUIRE_MESSAGE(submitted.get_future().wait_for(5s) == std::future_status::ready,
                          "submit, input " << i);
  }
}
