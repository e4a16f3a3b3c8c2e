// Control over a network: the same calls as over a Unix socket, and nobody who is not of the
// cluster, in the right role and by the right name, gets as far as one. Each refusal says why.
#include <sys/socket.h>

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <deque>
#include <filesystem>

#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/why.h"
#include "tests/transport/fake_rank.h"
#include "transport/rpc/channel.h"
#include "transport/socket_address.h"

namespace chainpump::transport::rpc {
namespace {

using fakes::why;

namespace fs = std::filesystem;
using Loaded = std::shared_ptr<const Credentials>;

struct Cluster {
  Cluster() { BOOST_REQUIRE(make_authority(folder.path()).ok()); }
  fs::path issued(const std::string& name, Role role, int64_t ends_s = 86400) {
    Result<fs::path> made = issue(folder.path(), {{role, name}, -3600, ends_s});
    BOOST_REQUIRE(made.ok());
    return *made;
  }
  Loaded credentials(const std::string& name, Role role) {
    Result<Loaded> loaded = Credentials::load(issued(name, role));
    BOOST_REQUIRE(loaded.ok());
    return *loaded;
  }
  /// Valid when it is loaded, and no more when this returns.
  Loaded soon_expired(const std::string& name, Role role) {
    const fs::path at = issued(name, role, 2);
    Result<Loaded> loaded = Credentials::load(at);
    BOOST_REQUIRE(loaded.ok());
    const TimePoint deadline = steady_clock().now() + kPatience;
    while (read_certified(at).ok()) {
      BOOST_REQUIRE((steady_clock().now() < deadline));
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return *loaded;
  }
  TemporaryFolder folder;
};

/// A rank that listens on the loopback, as one of node "b".
struct Server {
  explicit Server(Loaded credentials) {
    Result<UniqueFd> listener = listen_network("127.0.0.1:0");
    BOOST_REQUIRE(listener.ok());
    address = own_address(*listener);
    int fds[2];
    BOOST_REQUIRE_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    control.reset(fds[0]);
    RankServerOptions options;
    options.admission = {credentials, Role::coordinator, [this](const std::string& text) {
                           const std::lock_guard lock(mutex);
                           refusals.push_back(text);
                         }};
    served = std::async(std::launch::async, [this, fd = fds[1], of = listener->release(), options] {
      return serve_rank(UniqueFd(fd), UniqueFd(of), rank, options);
    });
  }
  ~Server() { control.reset(); }
  std::string last_refusal() {
    const std::lock_guard lock(mutex);
    return refusals.empty() ? "" : refusals.back();
  }

  FakeRank rank;
  std::string address;
  UniqueFd control;
  std::mutex mutex;
  std::deque<std::string> refusals;
  std::future<Status> served;
};

Result<HelloReply> hello(RpcThread& thread, const std::string& address, const Loaded& as,
                         const Expected& expected) {
  Result<Channel> channel = open_channel(address, as, expected);
  if (!channel.ok()) return channel.error();
  RankClient client(thread, std::move(*channel), [](const Error&) {});
  std::promise<Result<HelloReply>> promise;
  client.hello(kPatience, [&](Result<HelloReply> reply) { promise.set_value(std::move(reply)); });
  return promise.get_future().get();
}

bool says(const std::string& text, const std::string& word) {
  return text.find(word) != std::string::npos;
}

BOOST_AUTO_TEST_SUITE(rpc_network)

BOOST_AUTO_TEST_CASE(calls_and_results_go_over_tls) {
  Cluster cluster;
  auto server = std::make_unique<Server>(cluster.credentials("b", Role::node));
  RpcThread thread = *RpcThread::create();
  std::promise<Error> lost;
  {
    Result<Channel> channel = open_channel(
        server->address, cluster.credentials("head", Role::coordinator), {Role::node, "b"});
    BOOST_REQUIRE(channel.ok());
    RankClient client(thread, std::move(*channel), [&](Error error) { lost.set_value(error); });
    std::promise<Result<HelloReply>> greeted;
    client.hello(kPatience, [&](auto reply) { greeted.set_value(std::move(reply)); });
    const Result<HelloReply> reply = greeted.get_future().get();
    BOOST_TEST(reply.ok(), why(reply));
    std::atomic<size_t> num_tokens = 0;
    std::promise<Result<Ok>> attached;
    client.attach(
        0, [&](const LaneResults& results) { num_tokens += results.tokens.size(); }, kPatience,
        [&](Result<Ok> done) { attached.set_value(std::move(done)); });
    BOOST_REQUIRE(attached.get_future().get().ok());
    GenerateRequest request;
    request.request_id = 1;
    request.prompt.assign(60000, 7);  // several TLS records, both ways
    client.submit(0, {request}, kPatience, [](const Result<Ok>&) {});
    const TimePoint deadline = steady_clock().now() + kPatience;
    while (num_tokens < 60000 && steady_clock().now() < deadline) std::this_thread::yield();
    BOOST_TEST(num_tokens == 60000u);
    // Its end is told, and is a disconnection: whoever repairs goes by that.
    std::promise<Result<Ok>> watched;
    client.watch(true, [&](auto end) { watched.set_value(std::move(end)); });
    server.reset();
    const Result<Ok> end = watched.get_future().get();
    BOOST_REQUIRE(!end.ok());
    BOOST_TEST((end.error().code == ErrorCode::disconnected), end.error().message);
    BOOST_TEST((lost.get_future().get().code == ErrorCode::disconnected));
  }
}

// Who is refused by whom, and the words for it on either side.
BOOST_AUTO_TEST_CASE(strangers_are_refused_by_name) {
  Cluster cluster, foreign;
  const Loaded head = cluster.credentials("head", Role::coordinator);
  const Loaded node = cluster.credentials("b", Role::node);
  RpcThread thread = *RpcThread::create();
  struct Case {
    const char* what;
    Loaded server, client;
    Expected expected;
    const char* client_hears;
    const char* server_tells;
  };
  const std::vector<Case> cases = {
      {"another role",
       node,
       cluster.credentials("c", Role::node),
       {Role::node, "b"},
       "",
       "there is 'node/c', which is not a coordinator"},
      {"another authority",
       node,
       foreign.credentials("head", Role::coordinator),
       {Role::node, "b"},
       "its certificate is refused here",
       ""},
      {"an expired client",
       node,
       cluster.soon_expired("old", Role::coordinator),
       {Role::node, "b"},
       "it refuses the certificate of this process: it has expired",
       "not valid here"},
      {"another node", node, head, {Role::node, "c"}, "there is 'node/b', which is not node/c", ""},
      {"no node",
       head,
       head,
       {Role::node, ""},
       "there is 'coordinator/head', which is not a node",
       ""},
      {"an expired server",
       cluster.soon_expired("b2", Role::node),
       head,
       {Role::node, "b2"},
       "certificate has expired",
       ""},
  };
  for (const Case& c : cases) {
    Server server(c.server);
    const Result<HelloReply> reply = hello(thread, server.address, c.client, c.expected);
    BOOST_TEST(!reply.ok(), c.what);
    BOOST_TEST(says(why(reply), c.client_hears), c.what << ": " << why(reply));
    const TimePoint deadline = steady_clock().now() + kPatience;
    while (!says(server.last_refusal(), c.server_tells) && steady_clock().now() < deadline)
      std::this_thread::yield();
    BOOST_TEST(says(server.last_refusal(), c.server_tells),
               c.what << ": " << server.last_refusal());
    BOOST_TEST(hello(thread, server.address, head, {c.server->identity().role, ""}).ok() ==
               (c.server == node || c.server == head));
  }
  const Result<HelloReply> nobody = hello(thread, "127.0.0.1:1", head, {Role::node, "b"});
  BOOST_TEST((nobody.error().code == ErrorCode::disconnected), why(nobody));
  BOOST_TEST(says(why(nobody), "127.0.0.1:1"), why(nobody));
}

BOOST_AUTO_TEST_CASE(without_certificates_there_is_no_network) {
  Result<UniqueFd> listener = listen_network("127.0.0.1:0");
  BOOST_REQUIRE(listener.ok());
  const std::string address = own_address(*listener);
  FakeRank rank;
  const Status served = serve_rank(UniqueFd(), std::move(*listener), rank);
  BOOST_TEST(says(why(served), "with certificates only"), why(served));
  const auto channel = open_channel(address, nullptr, {Role::node, ""});
  BOOST_TEST(says(why(channel), "with certificates only"));
  for (const char* wrong : {"somewhere:1", "1.2.3.4", "127.0.0.1:99999", "203.0.113.9:0"})
    BOOST_TEST(!listen_network(wrong).ok(), wrong);
}

// As many who say nothing, or what is not TLS, as there may be: others get in when their time is
// over.
BOOST_AUTO_TEST_CASE(who_says_nothing_is_turned_away) {
  Cluster cluster;
  Server server(cluster.credentials("b", Role::node));
  const Result<SocketAddress> to = parse_socket_address(server.address);
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 64; ++i) {
    silent.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    BOOST_REQUIRE_EQUAL(::connect(silent.back().get(), to->get(), to->length), 0);
    if (i % 2 == 0)
      BOOST_REQUIRE_EQUAL(::send(silent.back().get(), "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
  }
  RpcThread thread = *RpcThread::create();
  const Loaded head = cluster.credentials("head", Role::coordinator);
  const TimePoint deadline = steady_clock().now() + 2 * kPatience;
  while (!hello(thread, server.address, head, {Role::node, "b"}).ok())
    BOOST_REQUIRE((steady_clock().now() < deadline));
  BOOST_TEST(says(server.last_refusal(), "refused a connection: 127.0.0.1:"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::transport::rpc
