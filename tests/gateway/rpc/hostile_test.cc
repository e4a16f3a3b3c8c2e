// Peers of the gateway that are not ours: garbage, true conversations cut short or with bytes
// changed, and peers that take all they can. Whatever comes, the gateway serves on, and holds no
// more for a peer than the interface says.
#include <capnp/message.h>
#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>

#include "tests/fakes/wiretap.h"
#include "tests/gateway/rpc/fixture.h"

namespace chainpump::gateway::rpc {
namespace {

using namespace std::chrono_literals;

constexpr int kNumInputs = 1000;

/// What a client says that makes every call.
fakes::Bytes conversation(TestServer& server) {
  auto [client_socket, client_tap] = fakes::connected_sockets();
  const UniqueFd server_socket = server.connect_raw();
  fakes::Wiretap tap;
  std::thread carrier([&, ours = std::move(client_tap)] { tap.run(ours, server_socket); });
  {
    auto client = Client::connect(std::move(client_socket), kPatience);
    BOOST_REQUIRE_MESSAGE(client.ok(), why(client));
    (*client)->watch(0, [](const auto&) {});
    auto generating = (*client)->generate(request());
    BOOST_REQUIRE_MESSAGE(generating.ok(), why(generating));
    auto scored = (*client)->score({.prompt = {0}, .targets = {1}});
    BOOST_REQUIRE((*client)->tokenize(TokenIds{1}).ok());
    BOOST_REQUIRE((*client)->status(kPatience).ok());
    (*generating)->cancel();
  }
  carrier.join();
  BOOST_REQUIRE_GT(tap.from_client.size(), 500u);
  return tap.from_client;
}

/// Whether the gateway closes the connection; what it still says is thrown away.
bool is_closed(const UniqueFd& socket) {
  const TimePoint until = steady_clock().now() + kPatience;
  char buffer[65536];
  while (steady_clock().now() < until) {
    pollfd ready{socket.get(), POLLIN, 0};
    if (poll(&ready, 1, 100) == 0) continue;
    if (read(socket.get(), buffer, sizeof buffer) <= 0) return true;
  }
  return false;
}

void check_it_serves(TestServer& server) {
  const auto client = server.connect();
  const auto generating = client->generate(request());
  BOOST_TEST(generating.ok(), why(generating));
}

template <typename Fill>
fakes::Bytes message(Fill&& fill) {
  capnp::MallocMessageBuilder builder;
  fill(builder.initRoot<capnp::rpc::Message>());
  const auto words = capnp::messageToFlatArray(builder);
  const auto bytes = words.asChars();
  return fakes::Bytes(bytes.begin(), bytes.end());
}

fakes::Bytes bootstrap(uint32_t question) {
  return message([&](auto root) { root.initBootstrap().setQuestionId(question); });
}

fakes::Bytes finish(uint32_t question) {
  return message([&](auto root) { root.initFinish().setQuestionId(question); });
}

void send_all(const UniqueFd& socket, const fakes::Bytes& bytes) {
  BOOST_REQUIRE_EQUAL(send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
                      static_cast<ssize_t>(bytes.size()));
}

}  // namespace

BOOST_AUTO_TEST_CASE(it_survives_what_peers_send) {
  TestServer server;
  const fakes::Bytes good = conversation(server);
  std::mt19937 random(21);
  for (int i = 0; i < kNumInputs; ++i) {
    const UniqueFd socket = server.connect_raw();
    fakes::say(socket, fakes::hostile(good, random));
    BOOST_REQUIRE_MESSAGE(is_closed(socket), "input " << i);
  }
  BOOST_TEST(wait_for([&] { return server.core().idle(); }));
  check_it_serves(server);
}

BOOST_AUTO_TEST_CASE(messages_beyond_the_limits_are_refused) {
  TestServer server;
  const auto head = [](std::vector<uint32_t> words) {
    const char* bytes = reinterpret_cast<const char*>(words.data());
    return fakes::Bytes(bytes, bytes + words.size() * sizeof(uint32_t));
  };
  for (const auto& bytes : {head({512, 1}),                 // 513 segments
                            head({UINT32_MAX, 1}),          // 2^32
                            head({0, (8u << 20) / 8 + 1}),  // a word above 8 MiB
                            head({0, UINT32_MAX}), head({1, UINT32_MAX, UINT32_MAX, 0})}) {
    const UniqueFd socket = server.connect_raw();
    send_all(socket, bytes);
    BOOST_TEST(is_closed(socket));
  }
  check_it_serves(server);
}

BOOST_AUTO_TEST_CASE(calls_that_are_never_released_have_a_limit) {
  TestServer server({.uid = ::geteuid(), .unreleased_calls_max = 100});
  const UniqueFd patient = server.connect_raw();
  for (uint32_t i = 0; i < 1000; ++i) {  // each released before the next
    send_all(patient, bootstrap(i));
    char answer[4096];
    BOOST_REQUIRE_GT(read(patient.get(), answer, sizeof answer), 0);
    send_all(patient, finish(i));
  }
  const UniqueFd greedy = server.connect_raw();
  for (uint32_t i = 0; i < 101; ++i) send_all(greedy, bootstrap(i));
  BOOST_TEST(is_closed(greedy));
  send_all(patient, bootstrap(1));
  char answer[4096];
  BOOST_TEST(read(patient.get(), answer, sizeof answer) > 0);
}

BOOST_AUTO_TEST_CASE(a_peer_that_does_not_read_is_not_read_from) {
  TestServer server;
  const UniqueFd socket = server.connect_raw();
  constexpr size_t kFarTooMuch = 32 << 20;
  size_t num_sent = 0;
  fakes::Bytes calls;
  for (uint32_t i = 0; i < 500; ++i)
    for (const fakes::Bytes& more : {bootstrap(i), finish(i)})
      calls.insert(calls.end(), more.begin(), more.end());
  size_t at = 0;
  while (num_sent < kFarTooMuch) {
    const ssize_t sent =
        send(socket.get(), calls.data() + at, calls.size() - at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      num_sent += static_cast<size_t>(sent);
      at = (at + static_cast<size_t>(sent)) % calls.size();
      continue;
    }
    BOOST_REQUIRE_MESSAGE(errno == EAGAIN, std::strerror(errno));
    pollfd room{socket.get(), POLLOUT, 0};
    if (poll(&room, 1, 1000) == 0) break;  // it reads no more
  }
  BOOST_TEST_MESSAGE("it read about " << num_sent << " bytes");
  BOOST_TEST(num_sent < kFarTooMuch);
  check_it_serves(server);
}

BOOST_AUTO_TEST_CASE(a_client_survives_what_a_service_sends) {
  TestServer server;
  fakes::Bytes good;
  {
    auto [client_socket, client_tap] = fakes::connected_sockets();
    const UniqueFd server_socket = server.connect_raw();
    fakes::Wiretap tap;
    std::thread carrier([&, ours = std::move(client_tap)] { tap.run(ours, server_socket); });
    {
      auto client = Client::connect(std::move(client_socket), kPatience);
      BOOST_REQUIRE_MESSAGE(client.ok(), why(client));
      auto generating = (*client)->generate(request());
      BOOST_REQUIRE(generating.ok());
      server.engine.token(0, 0, graph::FinishReason::length);
      Collected().collect(**generating);
    }
    carrier.join();
    good = tap.from_server;
  }
  std::mt19937 random(22);
  for (int i = 0; i < kNumInputs; ++i) {
    auto [ours, theirs] = fakes::connected_sockets();
    fakes::say(ours, fakes::hostile(good, random));
    const auto client = Client::connect(std::move(theirs), 5s);
    if (!client.ok()) continue;
    const auto generating = (*client)->generate(request());
    if (generating.ok()) Collected().collect(**generating);
  }
}

}  // namespace chainpump::gateway::rpc
