// How control connections end: the client before its thread and the other way round, a rank that
// never answers, never reads, leaves in the middle of a call or of a message, and messages that are
// too large. Everybody who waits is answered, once, with a code that says what happened.
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <boost/test/unit_test.hpp>
#include <future>
#include <thread>

#include "tests/fakes/no_descriptors.h"
#include "tests/fakes/no_threads.h"
#include "transport/rpc/rank_client.h"
#include "transport/rpc/rank_server.h"

using namespace chainpump;
using namespace chainpump::transport::rpc;
using namespace std::chrono_literals;

namespace {

struct IdleRank final : RankHandler {
  void on_load(LoadParams, ProgressReport, Reply<LoadReport> reply) override { hold(reply); }
  void on_connect(ConnectParams, Reply<Ok> reply) override { reply(Ok{}); }
  void on_attach(uint64_t, uint8_t, ResultSinkHandle, Reply<Ok> reply) override { reply(Ok{}); }
  void on_submit(uint64_t, std::vector<GenerateRequest>, Reply<Ok> reply) override { reply(Ok{}); }
  void on_cancel(uint64_t, std::vector<uint64_t>, Reply<Ok> reply) override { reply(Ok{}); }
  void on_detach(uint64_t) override {}
  void on_stats(Reply<RankStats> reply) override { reply(RankStats{}); }
  void on_trace(uint64_t, Reply<StepEvents> reply) override { reply(StepEvents{}); }
  void on_shutdown(Reply<Ok> reply) override { reply(Ok{}); }
  void on_watch(bool, Reply<Ok> reply) override { watch = std::move(reply); }
  BeatReply on_beat() override { return {.count = 7}; }
  void on_fence(uint8_t, uint32_t, Reply<StageHoldings> reply) override { reply(StageHoldings{}); }
  void on_resume(uint8_t, uint32_t, std::vector<StageHoldings>, Reply<Ok> reply) override {
    reply(Ok{});
  }
  void on_arm(const transport::FaultOrder&, Reply<Ok> reply) override { reply(Ok{}); }
  void on_take_in(KvCopy, Reply<KvAddress> reply) override { reply(KvAddress{}); }
  void on_copy(KvCopy, ProgressReport, Reply<Ok> reply) override { reply(Ok{}); }
  void on_finish_copy(Reply<Ok> reply) override { reply(Ok{}); }
  void hold(Reply<LoadReport>& reply) {
    load = std::move(reply);
    loading.set_value();
  }
  Reply<LoadReport> load;
  Reply<Ok> watch;
  std::promise<void> loading;
};

std::pair<UniqueFd, UniqueFd> sockets() {
  int fds[2];
  BOOST_REQUIRE_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

/// A callback, and what it was told.
template <typename T>
struct Answer {
  std::shared_ptr<std::promise<Result<T>>> promise = std::make_shared<std::promise<Result<T>>>();
  std::future<Result<T>> future = promise->get_future();
  Callback<T> callback() {
    return [p = promise](Result<T> result) { p->set_value(std::move(result)); };  // twice: throws
  }
  bool answered() const { return future.wait_for(0s) == std::future_status::ready; }
  ErrorCode code() {
    BOOST_REQUIRE(future.wait_for(20s) == std::future_status::ready);
    const Result<T> result = future.get();
    BOOST_REQUIRE(!result.ok());
    BOOST_TEST_MESSAGE(result.error().message);
    return result.error().code;
  }
};
void ignore(const Error&) {}

/// Serves a rank on a thread of its own.
struct Served {
  explicit Served(UniqueFd socket)
      : status(std::async(std::launch::async, [this, fd = socket.release()] {
          return serve_rank(UniqueFd(fd), UniqueFd(), rank);
        })) {}
  /// A client that leaves, in the middle of a call or of a message, is no failure of the rank.
  void check_left() {
    BOOST_REQUIRE(status.wait_for(5s) == std::future_status::ready);
    const Status left = status.get();
    BOOST_TEST(left.ok(), (left.ok() ? "" : left.error().message));
  }
  IdleRank rank;
  std::future<Status> status;
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_client_may_outlive_its_thread) {
  auto [ours, theirs] = sockets();
  Served served(std::move(theirs));
  Answer<HelloReply> hello;
  Answer<LoadReport> load;
  Answer<RankStats> late;
  auto thread = std::make_unique<RpcThread>(*RpcThread::create());
  RankClient client(*thread, std::move(ours), ignore);
  client.hello(20s, hello.callback());
  BOOST_REQUIRE(hello.future.get().ok());
  client.load({}, 20s, nullptr, load.callback());
  served.rank.loading.get_future().wait();
  thread.reset();
  BOOST_TEST(load.answered());
  BOOST_TEST((load.code() == ErrorCode::cancelled));
  client.stats(20s, late.callback());
  BOOST_TEST(late.answered());
  BOOST_TEST((late.code() == ErrorCode::cancelled));
  served.rank.load(LoadReport{});  // to nobody
  served.check_left();
}

BOOST_AUTO_TEST_CASE(a_refused_thread_is_an_error) {
  const auto check = [](auto refused) {
    const Result<RpcThread> thread = [] {
      const typename decltype(refused)::type while_refused;
      return RpcThread::create();
    }();
    BOOST_REQUIRE(!thread.ok());
    BOOST_TEST((thread.error().code == ErrorCode::no_room));
  };
  check(std::type_identity<fakes::NoThreads>{});
  check(std::type_identity<fakes::NoDescriptors>{});  // a thread, but no loop
}

BOOST_AUTO_TEST_CASE(a_thread_outlives_its_clients) {
  RpcThread thread = *RpcThread::create();
  for (int round = 0; round < 20; ++round) {
    auto [ours, theirs] = sockets();
    Served served(std::move(theirs));
    Answer<HelloReply> hello;
    Answer<LoadReport> load;
    auto client = std::make_unique<RankClient>(
        thread, std::move(ours), [](const Error&) { BOOST_ERROR("destroyed, not disconnected"); });
    client->hello(20s, hello.callback());
    client->load({}, 20s, nullptr, load.callback());
    served.rank.loading.get_future().wait();
    client.reset();
    BOOST_TEST(load.answered());
    BOOST_TEST((load.code() == ErrorCode::cancelled));
    served.check_left();
  }
}

// Every place at which a client may break off: nothing sent, then each length of a first message.
BOOST_AUTO_TEST_CASE(a_client_that_leaves_inside_a_message_has_left) {
  const std::array<uint32_t, 10> hello = {1, 3, 3, 0};  // two segments, and 48 bytes of them
  for (size_t sent = 0; sent < sizeof hello; ++sent) {
    auto [ours, theirs] = sockets();
    Served served(std::move(theirs));
    BOOST_REQUIRE_EQUAL(write(ours.get(), hello.data(), sent), ssize_t(sent));
    ours.reset();
    served.check_left();
  }
}

BOOST_AUTO_TEST_CASE(a_client_that_takes_leave_in_words_has_left) {
  auto [ours, theirs] = sockets();
  Served served(std::move(theirs));
  // One segment of three words: a Message of one data word, its tag `abort`, and one null pointer.
  const std::array<uint32_t, 8> abort = {0, 3, 0, 0x00010001, 1, 0, 0, 0};
  BOOST_REQUIRE_EQUAL(write(ours.get(), abort.data(), sizeof abort), ssize_t{sizeof abort});
  served.check_left();
}

// The rank's answer lies unread when the client goes: the kernel resets the connection.
BOOST_AUTO_TEST_CASE(a_client_that_leaves_without_reading_has_left) {
  auto [ours, theirs] = sockets();
  Served served(std::move(theirs));
  auto [tap, to_client] = sockets();
  RpcThread thread = *RpcThread::create();
  RankClient client(thread, std::move(to_client), ignore);
  client.hello(20s, [](const Result<HelloReply>&) {});
  std::array<char, 4096> bytes;
  const ssize_t got = read(tap.get(), bytes.data(), bytes.size());
  BOOST_REQUIRE_GT(got, 0);
  BOOST_REQUIRE_EQUAL(write(ours.get(), bytes.data(), static_cast<size_t>(got)), got);
  char byte;
  BOOST_REQUIRE_EQUAL(recv(ours.get(), &byte, 1, MSG_PEEK), 1);  // an answer has come
  ours.reset();
  served.check_left();
}

// The rank has more to write than there will ever be room for when it learns that nothing follows,
// or is told what is no message: neither holds it up for longer than a second.
BOOST_AUTO_TEST_CASE(a_client_that_half_closes_and_never_reads_has_left) {
  for (const bool broken : {false, true}) {
    auto [ours, theirs] = sockets();
    Served served(std::move(theirs));
    // A Message of a kind that there is not: it comes back, as not understood.
    const std::array<uint32_t, 8> unknown = {0, 3, 0, 0x00010001, 99, 0, 0, 0};
    for (int i = 0; i < 10'000; ++i)
      BOOST_REQUIRE_EQUAL(write(ours.get(), unknown.data(), sizeof unknown),
                          ssize_t{sizeof unknown});
    const std::array<uint32_t, 4> no_message = {0, 1, 3, 0};
    if (broken)
      BOOST_REQUIRE_EQUAL(write(ours.get(), no_message.data(), sizeof no_message),
                          ssize_t{sizeof no_message});
    BOOST_REQUIRE_EQUAL(shutdown(ours.get(), SHUT_WR), 0);
    const TimePoint began = steady_clock().now();
    BOOST_REQUIRE(served.status.wait_for(10s) == std::future_status::ready);
    BOOST_TEST(to_seconds(steady_clock().now() - began) > 0.5);  // it was held up
    BOOST_TEST(served.status.get().ok() == !broken);
  }
}

BOOST_AUTO_TEST_CASE(a_rank_that_half_closes_and_never_reads_is_disconnected) {
  auto [ours, theirs] = sockets();
  RpcThread thread = *RpcThread::create();
  std::promise<Error> lost;
  RankClient client(thread, std::move(ours), [&](Error error) { lost.set_value(error); });
  GenerateRequest request;
  request.prompt.resize(1'000'000);  // more than the socket takes
  Answer<Ok> submit;
  client.attach(0, {}, 20s, [](const auto&) {});
  client.submit(0, {request}, 20s, submit.callback());
  char byte;
  BOOST_REQUIRE_EQUAL(read(theirs.get(), &byte, 1), 1);  // the calls are under way
  BOOST_REQUIRE_EQUAL(shutdown(theirs.get(), SHUT_WR), 0);
  BOOST_TEST((submit.code() == ErrorCode::disconnected));
  auto told = lost.get_future();
  BOOST_REQUIRE(told.wait_for(10s) == std::future_status::ready);
  BOOST_TEST((told.get().code == ErrorCode::disconnected));
}

// Both end at the same moment: no callback after the client's end, whichever was first.
BOOST_AUTO_TEST_CASE(client_and_thread_may_end_together) {
  for (int round = 0; round < 200; ++round) {
    auto [ours, theirs] = sockets();
    auto thread = std::make_unique<RpcThread>(*RpcThread::create());
    auto client = std::make_unique<RankClient>(*thread, std::move(ours), ignore);
    std::atomic<bool> gone{false};
    std::atomic<int> answers{0};
    std::atomic<int> late_answers{0};
    for (int call = 0; call < 3; ++call) {
      client->stats(20s, [&](const Result<RankStats>&) { ++(gone ? late_answers : answers); });
    }
    std::thread other([&] { thread.reset(); });
    client.reset();
    gone = true;
    const int answered = answers;
    other.join();
    BOOST_REQUIRE_EQUAL(answered, 3);
    BOOST_REQUIRE_EQUAL(late_answers, 0);
  }
}

BOOST_AUTO_TEST_CASE(a_rank_that_never_reads_costs_a_deadline) {
  auto [ours, theirs] = sockets();
  RpcThread thread = *RpcThread::create();
  RankClient client(thread, std::move(ours), ignore);
  GenerateRequest request;
  request.prompt.resize(1'000'000);  // more than the socket takes
  Answer<Ok> submit;
  Answer<RankStats> open;
  client.attach(0, {}, 20s, [](const auto&) {});
  client.submit(0, {request}, 100ms, submit.callback());
  BOOST_TEST((submit.code() == ErrorCode::deadline_exceeded));
  client.stats(20s, open.callback());
  // The client's end does not wait for the write.
}

BOOST_AUTO_TEST_CASE(a_rank_that_leaves_in_a_call_is_disconnected) {
  auto [ours, theirs] = sockets();
  RpcThread thread = *RpcThread::create();
  std::promise<Error> lost;
  RankClient client(thread, std::move(ours), [&](Error error) { lost.set_value(error); });
  Answer<HelloReply> hello;
  client.hello(20s, hello.callback());
  char byte;
  BOOST_REQUIRE_EQUAL(read(theirs.get(), &byte, 1), 1);  // the call is under way
  const uint32_t half_message[] = {0, 100, 1, 2};
  BOOST_REQUIRE_EQUAL(write(theirs.get(), half_message, sizeof half_message),
                      ssize_t{sizeof half_message});
  theirs.reset();
  BOOST_TEST((hello.code() == ErrorCode::disconnected));
  BOOST_TEST((lost.get_future().get().code == ErrorCode::disconnected));
  Answer<RankStats> after;
  client.stats(20s, after.callback());
  BOOST_TEST((after.code() == ErrorCode::disconnected));
}

BOOST_AUTO_TEST_CASE(a_call_too_large_for_a_message_is_refused) {
  auto [ours, theirs] = sockets();
  Served served(std::move(theirs));
  RpcThread thread = *RpcThread::create();
  RankClient client(thread, std::move(ours), ignore);
  Answer<HelloReply> hello;
  client.hello(20s, hello.callback());
  BOOST_REQUIRE(hello.future.get().ok());
  GenerateRequest request;
  request.prompt.resize((64u << 20) / sizeof(int32_t) + 1);
  Answer<Ok> submit;
  client.attach(0, {}, 20s, [](const auto&) {});
  client.submit(0, {request}, 20s, submit.callback());
  BOOST_TEST((submit.code() == ErrorCode::disconnected));
  const Status status = served.status.get();
  BOOST_REQUIRE(!status.ok());
  BOOST_TEST((status.error().code == ErrorCode::invalid_argument));
  BOOST_TEST(status.error().message.find("the limit is") != std::string::npos);
}

// Segment tables that lie, to both sides: sizes that add up to more than a message may hold, that
// overflow 32 bits together, and segments of nothing.
BOOST_AUTO_TEST_CASE(segment_tables_that_lie_are_refused) {
  const std::vector<std::vector<uint32_t>> tables = {
      {0, (64u << 20) / 8 + 1}, {1, 0x80000000, 0x80000001, 0}, {511, 0xffffffff}, {512, 1},
      {0xfffffffe, 0},
  };
  for (std::vector<uint32_t> table : tables) {
    table.resize(600, 0x10000000);
    const size_t num_bytes = table.size() * sizeof(uint32_t);
    auto [ours, theirs] = sockets();
    Served served(std::move(theirs));
    BOOST_REQUIRE_EQUAL(write(ours.get(), table.data(), num_bytes), ssize_t(num_bytes));
    BOOST_REQUIRE(served.status.wait_for(5s) == std::future_status::ready);
    BOOST_TEST((served.status.get().error().code == ErrorCode::invalid_argument));

    auto [client_end, rank_end] = sockets();
    RpcThread thread = *RpcThread::create();
    std::promise<Error> lost;
    RankClient client(thread, std::move(client_end), [&](Error error) { lost.set_value(error); });
    Answer<HelloReply> hello;
    client.hello(20s, hello.callback());
    BOOST_REQUIRE_EQUAL(write(rank_end.get(), table.data(), num_bytes), ssize_t(num_bytes));
    BOOST_TEST((hello.code() == ErrorCode::disconnected));
    const Error why = lost.get_future().get();
    BOOST_TEST(why.message.find("refused a message") != std::string::npos, why.message);
  }
}

// A message that was begun has 10 s to be complete; both sides wait at once.
BOOST_AUTO_TEST_CASE(a_message_that_never_ends_has_a_deadline) {
  const std::array<uint32_t, 4> begun = {0, 1000, 1, 2};
  auto [ours, theirs] = sockets();
  Served served(std::move(theirs));
  auto [client_end, rank_end] = sockets();
  RpcThread thread = *RpcThread::create();
  std::promise<Error> lost;
  RankClient client(thread, std::move(client_end), [&](Error error) { lost.set_value(error); });
  Answer<HelloReply> hello;
  client.hello(60s, hello.callback());
  for (const UniqueFd* end : {&ours, &rank_end})
    BOOST_REQUIRE_EQUAL(write(end->get(), begun.data(), sizeof begun), ssize_t{sizeof begun});
  BOOST_TEST((hello.code() == ErrorCode::disconnected));
  BOOST_TEST((lost.get_future().get().code == ErrorCode::disconnected));
  const Status status = served.status.get();
  BOOST_REQUIRE(!status.ok());
  BOOST_TEST((status.error().code == ErrorCode::invalid_argument));
  BOOST_TEST(status.error().message.find("not complete") != std::string::npos);
}
