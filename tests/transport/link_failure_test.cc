// What happens to a UCX link when the process at its other end is killed, when strangers knock, and
// over many incarnations.
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <fstream>

#include "base/unique_fd.h"
#include "tests/transport/conformance.h"
#include "transport/socket_address.h"
#include "transport/ucx/ucx_listener.h"
#include "transport/ucx/ucx_send_link.h"

extern char** environ;

namespace chainpump::transport {
namespace {

namespace data = boost::unit_test::data;
const auto kUcxKinds = data::make({LinkKind::ucx_tcp, LinkKind::ucx_shared_memory});
constexpr Duration kNoticedWithin = std::chrono::milliseconds(300);

/// A link_peer process; killed and reaped at the end.
class Peer {
 public:
  Peer(const char* role, LinkKind kind, std::string address) {
    int fds[2];
    BOOST_REQUIRE_EQUAL(pipe(fds), 0);
    output_.reset(fds[0]);
    const UniqueFd write_end(fds[1]);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, write_end.get(), STDOUT_FILENO);
    std::string program = CHAINPUMP_LINK_PEER;
    std::string name = role;
    std::string transport = kind == LinkKind::ucx_tcp ? "tcp" : "shared_memory";
    char* argv[] = {program.data(), name.data(), transport.data(),
                    address.empty() ? nullptr : address.data(), nullptr};
    BOOST_REQUIRE_EQUAL(posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
  }
  ~Peer() {
    kill();
    waitpid(pid_, nullptr, 0);
  }
  void kill() { ::kill(pid_, SIGKILL); }
  std::string read_line() {
    std::string line;
    for (char c; read(output_.get(), &c, 1) == 1 && c != '\n';) line += c;
    return line;
  }

 private:
  pid_t pid_ = -1;
  UniqueFd output_;
};

std::shared_ptr<UcxContext> context_of(LinkKind kind) {
  auto context = UcxContext::create(
      {.kind = kind == LinkKind::ucx_tcp ? TransportKind::tcp : TransportKind::shared_memory});
  BOOST_REQUIRE(context.ok());
  return *context;
}

BOOST_AUTO_TEST_SUITE(link_failure)

// Several times each: the moment of the kill differs.
BOOST_DATA_TEST_CASE(a_killed_sender_is_noticed, kUcxKinds, kind) {
  const auto context = context_of(kind);
  auto listener = UcxListener::create(context, {});
  BOOST_REQUIRE(listener.ok());
  for (uint64_t round = 0; round < 5; ++round) {
    Ends ends;
    auto link = (*listener)->accept(small_options());
    BOOST_REQUIRE(link.ok());
    ends.receive = std::move(*link);
    Peer peer("send", kind, (*listener)->address());
    for (uint64_t seed = 0; seed < 20 + round; ++seed) {
      const auto frame = receive(ends);
      BOOST_REQUIRE_MESSAGE(frame, ends.receive->error().message);
      BOOST_TEST(is_pattern(*frame, seed, 10, 8000));
    }
    peer.kill();
    const TimePoint killed = steady_clock().now();
    BOOST_REQUIRE(drive(ends, [&] {
      ends.receive->try_receive();
      return ends.receive->state() == LinkState::failed;
    }));
    BOOST_TEST(to_ms(steady_clock().now() - killed) < to_ms(kNoticedWithin));
    BOOST_TEST((ends.receive->error().code == ErrorCode::disconnected));
  }
}

BOOST_DATA_TEST_CASE(a_killed_receiver_is_noticed, kUcxKinds, kind) {
  const auto context = context_of(kind);
  for (int round = 0; round < 5; ++round) {
    Peer peer("receive", kind, "");
    Ends ends;
    auto link = ucx_connect(context, peer.read_line(), small_options());
    BOOST_REQUIRE(link.ok());
    ends.send = std::move(*link);
    BOOST_REQUIRE(drive(ends, [&] { return ends.send->state() == LinkState::open; }));
    for (uint64_t seed = 0; seed < 20; ++seed) BOOST_REQUIRE(send_pattern(ends, seed, 1, 99).ok());
    peer.kill();
    const TimePoint killed = steady_clock().now();
    BOOST_REQUIRE(drive(ends, [&] {
      if (auto slot = ends.send->try_acquire()) {
        static_cast<void>(
            ends.send->send(std::move(slot), FrameKind::result, MicrobatchId(1), {}, 8000));
      }
      return ends.send->state() == LinkState::failed;
    }));
    BOOST_TEST(to_ms(steady_clock().now() - killed) < to_ms(kNoticedWithin));
    BOOST_TEST((ends.send->error().code == ErrorCode::disconnected));
  }
}

BOOST_AUTO_TEST_CASE(nobody_listens) {
  Ends ends;
  auto link = ucx_connect(context_of(LinkKind::ucx_tcp), "127.0.0.1:1", small_options());
  BOOST_REQUIRE(link.ok());
  ends.send = std::move(*link);
  BOOST_REQUIRE(drive(ends, [&] { return ends.send->state() == LinkState::failed; }));
  BOOST_TEST((ends.send->error().code == ErrorCode::disconnected), ends.send->error().message);
}

BOOST_AUTO_TEST_CASE(addresses_that_cannot_be) {
  for (const char* address : {"", "127.0.0.1", "localhost:1", "127.0.0.1:", "127.0.0.1:65536",
                              "1.2.3.4.5:6", "[::1:5", "127.0.0.1:-1"}) {
    const auto parsed = parse_socket_address(address);
    BOOST_REQUIRE_MESSAGE(!parsed.ok(), address);
    BOOST_TEST((parsed.error().code == ErrorCode::invalid_argument));
  }
  for (const char* address : {"127.0.0.1:0", "10.1.2.3:65535", "[::1]:4711"}) {
    const auto parsed = parse_socket_address(address);
    BOOST_REQUIRE_MESSAGE(parsed.ok(), address);
    BOOST_TEST(to_string(parsed->storage) == address);
  }
}

// A raw TCP connection that never speaks, and one that speaks nonsense, before the right sender.
BOOST_AUTO_TEST_CASE(strangers_do_not_disturb) {
  const auto context = context_of(LinkKind::ucx_tcp);
  auto listener = UcxListener::create(context, {});
  BOOST_REQUIRE(listener.ok());
  const auto address = parse_socket_address((*listener)->address());
  BOOST_REQUIRE(address.ok());
  UniqueFd silent(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  BOOST_REQUIRE_EQUAL(connect(silent.get(), address->get(), address->length), 0);

  Ends ends;
  auto receive_link = (*listener)->accept(small_options());
  BOOST_REQUIRE(receive_link.ok());
  ends.receive = std::move(*receive_link);
  LinkOptions wrong = small_options();
  wrong.secret = 1;
  auto stranger = ucx_connect(context, (*listener)->address(), wrong);
  BOOST_REQUIRE(stranger.ok());
  ends.send = std::move(*stranger);
  BOOST_REQUIRE(drive(ends, [&] { return ends.send->state() == LinkState::failed; }));

  auto right = ucx_connect(context, (*listener)->address(), small_options());
  BOOST_REQUIRE(right.ok());
  ends.send = std::move(*right);
  BOOST_REQUIRE(drive(ends, [&] { return ends.receive->state() == LinkState::open; }));
  BOOST_REQUIRE(send_pattern(ends, 5, 6, 7).ok());
  const auto frame = receive(ends);
  BOOST_REQUIRE(frame);
  BOOST_TEST(is_pattern(*frame, 5, 6, 7));
}

size_t resident_kib() {
  std::ifstream file("/proc/self/statm");
  size_t total = 0;
  size_t resident = 0;
  file >> total >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE)) / 1024;
}
size_t num_open_files() {
  const auto folder = std::filesystem::directory_iterator("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(folder), end(folder)));
}

BOOST_DATA_TEST_CASE(incarnations_leave_nothing_behind, kUcxKinds, kind) {
  constexpr int kWarmUp = 20;
  constexpr int kIncarnations = 200;
  size_t resident_before = 0;
  size_t files_before = 0;
  for (int i = 0; i < kWarmUp + kIncarnations; ++i) {
    if (i == kWarmUp) {
      resident_before = resident_kib();
      files_before = num_open_files();
    }
    LinkOptions options = small_options();
    options.incarnation = LinkIncarnation(static_cast<uint32_t>(i + 1));
    Ends ends = open_ends(kind, options);
    BOOST_REQUIRE(send_pattern(ends, 1, 2, 3).ok());
    BOOST_REQUIRE(receive(ends));
    if (i % 2 == 0) {
      ends.send->close();
      BOOST_REQUIRE(drive(ends, [&] { return ends.receive->state() == LinkState::closed; }));
    }
  }
  BOOST_TEST(num_open_files() <= files_before);
  const size_t resident = resident_kib();
  const size_t grown = resident > resident_before ? resident - resident_before : 0;
  BOOST_TEST_MESSAGE("grown by " << grown << " KiB over " << kIncarnations << " incarnations");
  // UCX keeps about 75 KiB of each endpoint in mode NONE (shared memory), nothing over TCP.
  BOOST_TEST(grown < (kind == LinkKind::ucx_tcp ? 4096u : 40960u));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::transport
