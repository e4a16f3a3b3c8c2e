// Raw TCP connections to every door of a process, with bytes that are no UCX: the links that stand
// go on, those that are expected still come, and nothing is left behind.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cstring>
#include <filesystem>
#include <random>

#include "base/unique_fd.h"
#include "tests/transport/conformance.h"
#include "transport/socket_address.h"
#include "transport/ucx/ucx_listener.h"
#include "transport/ucx/ucx_send_link.h"

namespace chainpump::transport {
namespace {

using Bytes = std::vector<std::byte>;

std::shared_ptr<UcxContext> tcp_context() {
  static const auto context = UcxContext::create({});
  BOOST_REQUIRE(context.ok());
  return *context;
}

LinkOptions options_of(uint32_t edge) {
  LinkOptions options = small_options();
  options.edge = EdgeId(edge);
  return options;
}

BOOST_AUTO_TEST_SUITE(strangers)

/// A listener with one link open and working, and another that is waited for, so that the doors
/// stay open.
struct Working {
  Working() {
    const auto context = tcp_context();
    auto made = UcxListener::create(context, {});
    BOOST_REQUIRE(made.ok());
    listener = std::move(*made);
    auto link = listener->accept(options_of(3));
    auto later = listener->accept(options_of(4));
    auto send = ucx_connect(context, listener->address(), options_of(3));
    BOOST_REQUIRE(link.ok() && later.ok() && send.ok());
    ends.receive = std::move(*link);
    ends.send = std::move(*send);
    waiting = std::move(*later);
    BOOST_REQUIRE(drive(ends, [&] { return ends.send->state() == LinkState::open; }));
  }
  void exchange(uint64_t seed) {
    waiting->progress();
    BOOST_REQUIRE(send_pattern(ends, seed, 5, 100 + seed % 5000).ok());
    const auto frame = receive(ends);
    BOOST_REQUIRE(frame);
    BOOST_REQUIRE(is_pattern(*frame, seed, 5, 100 + seed % 5000));
  }
  /// The other link's turn: its sender comes at last.
  void second_link_opens() {
    auto send = ucx_connect(tcp_context(), listener->address(), options_of(4));
    BOOST_REQUIRE(send.ok());
    Ends second{nullptr, std::move(*send), std::move(waiting)};
    BOOST_REQUIRE(drive(second, [&] { return second.send->state() == LinkState::open; }));
    BOOST_REQUIRE(send_pattern(second, 1, 2, 3).ok());
    BOOST_REQUIRE(receive(second));
    waiting = std::move(second.receive);
    second_sender = std::move(second.send);
  }

  std::unique_ptr<UcxListener> listener;
  Ends ends;
  std::unique_ptr<ReceiveLink> waiting;
  std::unique_ptr<SendLink> second_sender;
};

/// A connection that has been begun; whether it is answered is another matter.
UniqueFd begin_connection(const SocketAddress& address) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  BOOST_REQUIRE(fd.valid());
  if (connect(fd.get(), address.get(), address.length) != 0)
    BOOST_REQUIRE(errno == EINPROGRESS || errno == ECONNREFUSED);
  return fd;
}
bool is_connected(const UniqueFd& fd) {
  pollfd p{fd.get(), POLLOUT, 0};
  return poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP)) == 0;
}

/// The addresses on which this process listens, all of them UCX's here.
std::vector<SocketAddress> doors_of_this_process() {
  std::vector<SocketAddress> result;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename());
    int listens = 0;
    socklen_t length = sizeof listens;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) != 0 || listens == 0) continue;
    SocketAddress& address = result.emplace_back();
    socklen_t size = sizeof address.storage;
    BOOST_REQUIRE_EQUAL(getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &size), 0);
    address.length = size;
    auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
    if (v4->sin_addr.s_addr == 0) v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }
  return result;
}
size_t num_open_files() {
  const auto folder = std::filesystem::directory_iterator("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(folder), end(folder)));
}

Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  return Bytes(bytes.begin(), bytes.end());
}
/// As UCX's connection manager begins: the length of what follows, a status.
Bytes manager_message(uint64_t claimed_bytes, size_t body_bytes, uint8_t fill) {
  Bytes bytes(16 + body_bytes, std::byte{fill});
  std::memcpy(bytes.data(), &claimed_bytes, sizeof claimed_bytes);
  std::memset(bytes.data() + 8, 0, 8);
  return bytes;
}

Bytes nonsense(std::mt19937& random) {
  switch (random() % 8) {
    case 0:
      return {};
    case 1:
      return bytes_of("GET / HTTP/1.1\r\nHost: chain\r\n\r\n");
    case 2:  // not 16 of them: a whole message that says nothing passes the filter (SECURITY.md)
      return Bytes(17 + random() % 5000, std::byte{0});
    case 3:
      return Bytes(1 + random() % 5000, std::byte{0xff});
    case 4:  // half a beginning
      return manager_message(200, random() % 100, 1);
    case 5:  // a length that cannot be
      return manager_message(uint64_t{1} << (16 + random() % 48), random() % 5000, 2);
    case 6:  // more than the length says
      return manager_message(random() % 100, 100 + random() % 5000, 3);
    default: {
      Bytes noise(1 + random() % 3000);
      for (std::byte& b : noise) b = static_cast<std::byte>(random());
      return noise;
    }
  }
}

// Thousands of raw connections to every door while one is expected: some close at once, some stay.
BOOST_AUTO_TEST_CASE(thousands_of_strangers_disturb_nobody) {
  constexpr int kConnections = 4000;
  constexpr size_t kStay = 100;
  Working working;
  working.exchange(0);
  const std::vector<SocketAddress> doors = doors_of_this_process();
  BOOST_REQUIRE(doors.size() >= 3);  // the listener's, and one in every worker
  const size_t files_before = num_open_files();
  std::mt19937 random(5);
  std::vector<UniqueFd> staying(kStay);
  for (int i = 0; i < kConnections; ++i) {
    UniqueFd& fd = staying[static_cast<size_t>(i) % kStay];
    fd = begin_connection(doors[random() % doors.size()]);
    const Bytes bytes = nonsense(random);
    (void)send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (random() % 2 == 0) fd.reset();
    if (i % 20 == 0) working.exchange(static_cast<uint64_t>(i));
  }
  working.second_link_opens();
  staying.clear();
  // UCX closes its ends in a thread of its own; the second link has descriptors, too.
  const TimePoint deadline = steady_clock().now() + std::chrono::seconds(5);
  while (num_open_files() > files_before + 16 && steady_clock().now() < deadline)
    working.exchange(1);
  BOOST_TEST(num_open_files() <= files_before + 16);
}

// Once its links stand, a process lets nobody in; a link that is waited for opens the door again.
BOOST_AUTO_TEST_CASE(doors_are_shut_when_nobody_is_expected) {
  Working working;
  const auto listener = parse_socket_address(working.listener->address());
  BOOST_REQUIRE(listener.ok());
  const UniqueFd early = begin_connection(*listener);
  BOOST_TEST(is_connected(early));
  working.second_link_opens();
  std::vector<UniqueFd> late;
  for (const SocketAddress& door : doors_of_this_process()) late.push_back(begin_connection(door));
  BOOST_REQUIRE(late.size() >= 4u);  // both ends of two links
  late.push_back(begin_connection(*listener));
  for (uint64_t seed = 0; seed < 100; ++seed) working.ends.receive->progress();
  for (const UniqueFd& fd : late) BOOST_TEST(!is_connected(fd));
  const auto next = working.listener->accept(options_of(5));
  BOOST_REQUIRE(next.ok());
  BOOST_TEST(is_connected(begin_connection(*listener)));
}

BOOST_AUTO_TEST_CASE(kept_open_it_takes_a_sender_that_comes_before_its_accept) {
  Working working;
  working.second_link_opens();
  BOOST_REQUIRE(working.listener->keep_open(true).ok());
  auto send = ucx_connect(tcp_context(), working.listener->address(), options_of(5));
  BOOST_REQUIRE(send.ok());
  const TimePoint until = steady_clock().now() + std::chrono::milliseconds(50);
  while (steady_clock().now() < until) (*send)->progress();
  BOOST_REQUIRE((*send)->state() == LinkState::connecting);
  auto receive = working.listener->accept(options_of(5));
  BOOST_REQUIRE(receive.ok());
  Ends ends{nullptr, std::move(*send), std::move(*receive)};
  BOOST_TEST(drive(ends, [&] { return ends.send->state() == LinkState::open; }));
  const auto address = parse_socket_address(working.listener->address());
  BOOST_TEST(is_connected(begin_connection(*address)));
  BOOST_REQUIRE(working.listener->keep_open(false).ok());
  BOOST_TEST(!is_connected(begin_connection(*address)));
}

// A rank in many lanes: there are more than it has room for before they have shown who they are.
BOOST_AUTO_TEST_CASE(many_senders_that_come_at_once_are_all_let_in) {
  constexpr uint32_t kSenders = 40;
  const auto context = tcp_context();
  const auto listener = UcxListener::create(context, {});
  BOOST_REQUIRE(listener.ok());
  std::vector<Ends> links;
  for (uint32_t i = 0; i < kSenders; ++i) {
    auto receive = (*listener)->accept(options_of(i));
    auto send = ucx_connect(context, (*listener)->address(), options_of(i));
    BOOST_REQUIRE(receive.ok() && send.ok());
    links.push_back({nullptr, std::move(*send), std::move(*receive)});
  }
  const auto is_open = [](const Ends& ends) { return ends.send->state() == LinkState::open; };
  const TimePoint deadline = steady_clock().now() + std::chrono::seconds(20);
  while (!std::all_of(links.begin(), links.end(), is_open) && steady_clock().now() < deadline)
    for (Ends& ends : links) {
      ends.send->progress();
      ends.receive->progress();
    }
  BOOST_TEST(std::count_if(links.begin(), links.end(), is_open) == kSenders);
}

BOOST_AUTO_TEST_CASE(a_port_that_is_lost_while_shut_is_another_one_afterwards) {
  Working working;
  working.second_link_opens();
  const auto lost = parse_socket_address(working.listener->address());
  const UniqueFd thief(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int one = 1;
  BOOST_REQUIRE_EQUAL(setsockopt(thief.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), 0);
  BOOST_REQUIRE_EQUAL(bind(thief.get(), lost->get(), lost->length), 0);
  BOOST_REQUIRE_EQUAL(listen(thief.get(), 1), 0);
  BOOST_TEST(!working.listener->accept(options_of(5)).ok());
  BOOST_REQUIRE(working.listener->keep_open(true).ok());
  const auto found = parse_socket_address(working.listener->address());
  BOOST_TEST(to_string(found->storage) != to_string(lost->storage));
  BOOST_TEST(is_connected(begin_connection(*found)));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::transport
