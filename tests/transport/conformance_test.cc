#include "tests/transport/conformance.h"

#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <deque>
#include <thread>

#include "base/philox.h"
#include "transport/waiter.h"

namespace chainpump::transport {
namespace {

namespace data = boost::unit_test::data;
const auto kAllKinds =
    data::make({LinkKind::loopback, LinkKind::ucx_tcp, LinkKind::ucx_shared_memory});

constexpr size_t kMiB = 1 << 20;

BOOST_AUTO_TEST_SUITE(link_conformance)

// Sizes round the borders of eager and rendezvous, of UCX's segments, and beyond 1 MiB.
BOOST_DATA_TEST_CASE(sizes_and_metadata_arrive_exactly, kAllKinds, kind) {
  LinkOptions options = small_options();
  options.slot_payload_bytes = 3 * kMiB + 5;
  options.slot_metadata_bytes = 70000;
  Ends ends = open_ends(kind, options);
  uint64_t seed = 1;
  for (const size_t payload :
       {size_t{0}, size_t{1}, size_t{63}, size_t{64}, size_t{8191}, size_t{8192}, size_t{12288},
        size_t{16384}, size_t{65537}, size_t{261120}, size_t{262144}, size_t{524288}, kMiB,
        kMiB + 1, 3 * kMiB + 5}) {
    for (const size_t metadata : {size_t{0}, size_t{1}, size_t{100}, size_t{70000}}) {
      BOOST_REQUIRE(send_pattern(ends, seed, metadata, payload).ok());
      const auto frame = receive(ends);
      BOOST_REQUIRE_MESSAGE(frame, "payload " << payload << " metadata " << metadata << ": "
                                              << ends.receive->error().message);
      BOOST_TEST(is_pattern(*frame, seed, metadata, payload));
      ++seed;
    }
  }
  const LinkStats sent = ends.send->stats();
  const LinkStats received = ends.receive->stats();
  BOOST_TEST(sent.frames == seed - 1);
  BOOST_TEST(received.frames == sent.frames);
  BOOST_TEST(received.payload_bytes == sent.payload_bytes);
  BOOST_TEST(received.metadata_bytes == sent.metadata_bytes);
  BOOST_TEST(sent.payload_copies_bytes == 0u);
  BOOST_TEST(received.payload_copies_bytes <= received.payload_bytes);
  if (kind == LinkKind::loopback) BOOST_TEST(received.payload_copies_bytes == 0u);
  BOOST_TEST(received.latency_p50_us > 0);
  BOOST_TEST(!received.transport.empty());
  BOOST_TEST_MESSAGE("transport " << received.transport);
}

// Small and large frames mixed: a small one must not overtake a rendezvous.
BOOST_DATA_TEST_CASE(frames_keep_their_order, kAllKinds, kind) {
  LinkOptions options = small_options();
  options.credits = 8;
  options.slot_payload_bytes = kMiB;
  Ends ends = open_ends(kind, options);
  uint64_t received = 0;
  for (uint64_t seed = 0; received < 200;) {
    for (int burst = 0; burst < 8 && seed < 200; ++burst, ++seed) {
      BOOST_REQUIRE(send_pattern(ends, seed, 17, seed % 3 == 0 ? kMiB : 100 * seed % 4096).ok());
    }
    for (; received < seed; ++received) {
      const auto frame = receive(ends);
      BOOST_REQUIRE(frame);
      const size_t size = received % 3 == 0 ? kMiB : 100 * received % 4096;
      BOOST_REQUIRE(is_pattern(*frame, received, 17, size));
    }
  }
}

BOOST_DATA_TEST_CASE(credits_run_out_and_come_back, kAllKinds, kind) {
  Ends ends = open_ends(kind, small_options());
  for (uint64_t seed = 0; seed < 4; ++seed) BOOST_REQUIRE(send_pattern(ends, seed, 0, 100).ok());
  std::deque<std::unique_ptr<ReceivedFrame>> held;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    held.push_back(receive(ends));
    BOOST_REQUIRE(held.back());
  }
  BOOST_TEST(!ends.send->try_acquire());
  BOOST_TEST(ends.send->stats().blocked_on_credit.count() >= 0);
  // All slots held; contents stay.
  for (uint64_t seed = 0; seed < 4; ++seed) BOOST_TEST(is_pattern(*held[seed], seed, 0, 100));
  held.pop_front();
  std::unique_ptr<SendSlot> slot;
  BOOST_REQUIRE(drive(ends, [&] { return (slot = ends.send->try_acquire()) != nullptr; }));
  BOOST_TEST(!ends.send->try_acquire());
  slot.reset();  // let go unsent: both come back
  slot = ends.send->try_acquire();
  BOOST_TEST(slot != nullptr);
  slot.reset();
  held.clear();
  std::deque<std::unique_ptr<SendSlot>> all;
  BOOST_REQUIRE(drive(ends, [&] {
    auto another = ends.send->try_acquire();
    if (another) all.push_back(std::move(another));
    return all.size() == 4;
  }));
  BOOST_TEST(!ends.send->try_acquire());
}

BOOST_DATA_TEST_CASE(sender_closes, kAllKinds, kind) {
  Ends ends = open_ends(kind, small_options());
  for (uint64_t seed = 0; seed < 3; ++seed) BOOST_REQUIRE(send_pattern(ends, seed, 5, 500).ok());
  auto unsent = ends.send->try_acquire();
  BOOST_REQUIRE(unsent);
  ends.send->close();
  BOOST_TEST(!ends.send->try_acquire());
  const Status late = ends.send->send(std::move(unsent), FrameKind::result, MicrobatchId(9), {}, 0);
  BOOST_REQUIRE(!late.ok());
  BOOST_TEST((late.error().code == ErrorCode::disconnected));
  BOOST_REQUIRE(drive(ends, [&] { return ends.send->state() == LinkState::closed; }));
  BOOST_TEST((ends.receive->state() == LinkState::closing));
  for (uint64_t seed = 0; seed < 3; ++seed) {
    const auto frame = receive(ends);
    BOOST_REQUIRE(frame);
    BOOST_TEST(is_pattern(*frame, seed, 5, 500));
  }
  BOOST_TEST(drive(ends, [&] { return ends.receive->state() == LinkState::closed; }));
}

BOOST_DATA_TEST_CASE(receiver_closes, kAllKinds, kind) {
  LinkOptions options = small_options();
  options.slot_payload_bytes = kMiB;
  Ends ends = open_ends(kind, options);
  BOOST_REQUIRE(send_pattern(ends, 1, 5, kMiB).ok());  // under way when the close comes
  ends.receive->close();
  const auto frame = receive(ends);
  BOOST_REQUIRE_MESSAGE(frame, ends.receive->error().message);
  BOOST_TEST(is_pattern(*frame, 1, 5, kMiB));
  BOOST_TEST(drive(ends, [&] {
    return ends.receive->state() == LinkState::closed && ends.send->state() == LinkState::closed;
  }));
}

BOOST_DATA_TEST_CASE(an_end_that_vanishes_is_noticed, kAllKinds, kind) {
  Ends ends = open_ends(kind, small_options());
  auto slot = ends.send->try_acquire();  // outlives its link
  ends.send.reset();
  slot.reset();
  BOOST_REQUIRE(drive(ends, [&] { return ends.receive->state() == LinkState::failed; }));
  BOOST_TEST((ends.receive->error().code == ErrorCode::disconnected));

  ends = open_ends(kind, small_options());
  BOOST_REQUIRE(send_pattern(ends, 1, 0, 10).ok());
  auto frame = receive(ends);
  BOOST_REQUIRE(frame);
  ends.receive.reset();
  BOOST_TEST(is_pattern(*frame, 1, 0, 10));  // the frame outlives its link
  frame.reset();
  BOOST_REQUIRE(drive(ends, [&] { return ends.send->state() == LinkState::failed; }));
  BOOST_TEST((ends.send->error().code == ErrorCode::disconnected));
  BOOST_TEST(!ends.send->try_acquire());
}

BOOST_DATA_TEST_CASE(a_wrong_hello_is_refused_by_name, kAllKinds, kind) {
  struct Case {
    const char* named;
    std::function<void(LinkOptions&)> spoil;
  };
  const std::vector<Case> cases = {
      {"secret", [](LinkOptions& o) { o.secret ^= 1; }},
      {"epoch", [](LinkOptions& o) { o.epoch = PlanEpoch(8); }},
      {"incarnation", [](LinkOptions& o) { o.incarnation = LinkIncarnation(3); }},
      {"edge", [](LinkOptions& o) { o.edge = EdgeId(4); }},
      {"credits_granted", [](LinkOptions& o) { o.credits = 5; }},
      {"slot_payload_bytes", [](LinkOptions& o) { o.slot_payload_bytes = 4096; }},
      {"slot_metadata_bytes", [](LinkOptions& o) { o.slot_metadata_bytes = 255; }},
  };
  for (const Case& c : cases) {
    LinkOptions wrong = small_options();
    c.spoil(wrong);
    Ends ends = make_ends(kind, wrong, small_options());
    BOOST_REQUIRE(drive(ends, [&] { return ends.send->state() == LinkState::failed; }));
    BOOST_TEST((ends.send->error().code == ErrorCode::invalid_argument));
    BOOST_TEST(ends.send->error().message.find(c.named) != std::string::npos,
               c.named << " not in: " << ends.send->error().message);
    // The stranger disturbed nobody: over UCX the receiver still waits for the right one.
    if (kind != LinkKind::loopback) BOOST_TEST((ends.receive->state() == LinkState::connecting));
  }
}

// A thread at each end, sleeping between frames; the receiver holds a random number of frames.
BOOST_DATA_TEST_CASE(thousand_frames_between_two_threads, kAllKinds, kind) {
  LinkOptions options = small_options();
  options.slot_payload_bytes = 300000;
  constexpr uint64_t kFrames = 1000;
  Ends ends = open_ends(kind, options);
  const auto size_of = [](uint64_t seed) {
    return static_cast<size_t>(philox4x32({static_cast<uint32_t>(seed), 0, 0, 0}, {5, 5})[0] %
                               (seed % 10 == 0 ? 300000 : 9000));
  };
  const TimePoint deadline = steady_clock().now() + std::chrono::seconds(60);
  std::atomic<bool> sent_all{false};
  std::thread sender([&] {
    Ends mine;
    mine.send = std::move(ends.send);
    SendLink& link = *mine.send;
    Waiter waiter({.spin_max = std::chrono::microseconds(20)});
    waiter.add({[&] { return link.progress(); }, [&] { return link.arm(); }, link.event_fd()});
    for (uint64_t seed = 0; seed < kFrames; ++seed) {
      std::unique_ptr<SendSlot> slot;
      while (!(slot = link.try_acquire()) && waiter.wait_until(deadline)) {
      }
      if (!slot) return;
      const auto payload = pattern(seed, size_of(seed));
      std::copy(payload.begin(), payload.end(), slot->payload().begin());
      if (!link.send(std::move(slot), FrameKind::activation, MicrobatchId(seed),
                     pattern(seed + 1, seed % 200), static_cast<int64_t>(payload.size()))
               .ok()) {
        return;
      }
    }
    link.close();
    while (link.state() == LinkState::closing && waiter.wait_until(deadline)) {
    }
    sent_all = link.state() == LinkState::closed;
  });
  Waiter waiter({.spin_max = std::chrono::microseconds(20)});
  ReceiveLink& link = *ends.receive;
  waiter.add({[&] { return link.progress(); }, [&] { return link.arm(); }, link.event_fd()});
  std::deque<std::unique_ptr<ReceivedFrame>> held;
  uint64_t received = 0;
  bool exact = true;
  while (received < kFrames) {
    auto frame = link.try_receive();
    if (!frame) {
      if (!waiter.wait_until(deadline) || link.state() == LinkState::failed) break;
      continue;
    }
    exact &= is_pattern(*frame, received, received % 200, size_of(received));
    held.push_back(std::move(frame));
    const size_t keep = philox4x32({static_cast<uint32_t>(received), 1, 0, 0}, {5, 5})[0] % 4;
    while (held.size() > keep) held.pop_front();
    ++received;
  }
  held.clear();
  while (link.state() == LinkState::closing && waiter.wait_until(deadline)) {
  }
  if (link.state() == LinkState::open) waiter.wait_until(deadline);
  while (link.state() == LinkState::closing && waiter.wait_until(deadline)) {
  }
  sender.join();
  BOOST_TEST(received == kFrames);
  BOOST_TEST(exact);
  BOOST_TEST(sent_all);
  BOOST_TEST((link.state() == LinkState::closed), link.error().message);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::transport
