// What only the loopback lets us do: a hand on the wire. And the pure parts beneath every link.
#include "transport/loopback.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <chrono>
#include <thread>

#include "base/unique_fd.h"
#include "transport/credit_ledger.h"
#include "transport/frame.h"
#include "transport/latency_histogram.h"
#include "transport/link_core.h"
#include "transport/slot_pool.h"
#include "transport/waiter.h"

namespace chainpump::transport {
namespace {

LinkOptions options() {
  LinkOptions o;
  o.edge = EdgeId(1);
  o.credits = 2;
  o.slot_payload_bytes = 100;
  o.slot_metadata_bytes = 10;
  return o;
}

BOOST_AUTO_TEST_SUITE(loopback)

// Any byte changed on the way, in header, metadata or payload, fails the link with a refusal.
BOOST_AUTO_TEST_CASE(a_corrupted_frame_is_refused) {
  for (size_t place = 0; place < kFrameHeaderBytes + 5 + 50; ++place) {
    int messages = 0;
    LoopbackTestOptions test{options(), options(), [&](std::span<std::byte> message) {
                               if (++messages == 2) message[place] ^= std::byte{0x10};
                             }};
    auto [send, receive] = make_loopback_pair(test);
    BOOST_REQUIRE((send->state() == LinkState::open));
    const std::vector<std::byte> metadata(5, std::byte{1});
    BOOST_REQUIRE(
        send->send(send->try_acquire(), FrameKind::activation, MicrobatchId(1), metadata, 50).ok());
    receive->progress();
    BOOST_TEST(!receive->try_receive());
    BOOST_REQUIRE((receive->state() == LinkState::failed));
    BOOST_TEST((receive->error().code == ErrorCode::invalid_argument));
    BOOST_TEST(receive->stats().refused_frames == 1u);
    send->progress();
    BOOST_TEST((send->state() == LinkState::failed));
  }
}

BOOST_AUTO_TEST_CASE(without_checksum_the_payload_is_not_looked_at) {
  LinkOptions plain = options();
  plain.checksum_payload = false;
  LoopbackTestOptions test{plain, plain, [&](std::span<std::byte> message) {
                             if (message.size() == kFrameHeaderBytes + 50) {
                               message[kFrameHeaderBytes + 7] = std::byte{0x77};
                             }
                           }};
  auto [send, receive] = make_loopback_pair(test);
  BOOST_REQUIRE(
      send->send(send->try_acquire(), FrameKind::activation, MicrobatchId(1), {}, 50).ok());
  receive->progress();
  const auto frame = receive->try_receive();
  BOOST_REQUIRE(frame);
  BOOST_TEST((frame->payload()[7] == std::byte{0x77}));
}

BOOST_AUTO_TEST_CASE(closing_has_a_deadline) {
  auto [send, receive] = make_loopback_pair(options());
  send->close();
  const TimePoint start = steady_clock().now();
  Waiter waiter({});
  waiter.add({[&] { return send->progress(); }, [&] { return send->arm(); }, send->event_fd()});
  while (send->state() == LinkState::closing) {
    waiter.wait_until(steady_clock().now() + std::chrono::milliseconds(20));
    BOOST_REQUIRE(steady_clock().now() - start < std::chrono::seconds(5));
  }
  BOOST_TEST((send->error().code == ErrorCode::deadline_exceeded));
}

BOOST_AUTO_TEST_CASE(options_that_cannot_be) {
  for (const auto& spoil : std::initializer_list<void (*)(LinkOptions&)>{
           [](LinkOptions& o) { o.credits = 0; }, [](LinkOptions& o) { o.credits = 1025; },
           [](LinkOptions& o) { o.slot_payload_bytes = -1; },
           [](LinkOptions& o) { o.slot_payload_bytes = (int64_t{1} << 30) + 1; },
           [](LinkOptions& o) { o.slot_metadata_bytes = -1; },
           [](LinkOptions& o) { o.slot_metadata_bytes = (int64_t{1} << 24) + 1; }}) {
    LinkOptions o = options();
    spoil(o);
    const Status valid = check_link_options(o);
    BOOST_REQUIRE(!valid.ok());
    BOOST_TEST((valid.error().code == ErrorCode::invalid_argument));
  }
}

BOOST_AUTO_TEST_CASE(the_ledger_keeps_its_sum) {
  CreditLedger ledger(3);
  ledger.acquire();
  ledger.acquire();
  ledger.send();
  BOOST_TEST(ledger.available() == 1);
  BOOST_TEST(ledger.held() == 1);
  BOOST_TEST(ledger.in_flight() == 1);
  ledger.give_back();
  ledger.returned(1);
  BOOST_TEST(ledger.available() == ledger.granted());
}

BOOST_AUTO_TEST_CASE(slots_are_aligned_apart_and_contiguous) {
  SlotPool pool(3, 13, 100);
  std::vector<int32_t> slots;
  while (const auto slot = pool.take()) slots.push_back(*slot);
  BOOST_TEST(slots.size() == 3u);
  for (const int32_t slot : slots) {
    const auto payload = pool.payload(slot);
    BOOST_TEST(reinterpret_cast<uintptr_t>(payload.data()) % 64 == 0);
    BOOST_TEST(payload.size() == 100u);
    const auto body = pool.body(slot, 13, 100);
    BOOST_TEST((body.data() + 13 == payload.data()));
    BOOST_TEST((pool.header(slot, 13).data() + kFrameHeaderBytes == body.data()));
    const auto memory = pool.memory();
    BOOST_TEST((pool.header(slot, 13).data() >= memory.data()));
    BOOST_TEST((payload.data() + payload.size() <= memory.data() + memory.size()));
  }
  pool.put_back(slots[1]);
  BOOST_TEST(*pool.take() == slots[1]);
}

BOOST_AUTO_TEST_CASE(percentiles_bound_what_was_added) {
  LatencyHistogram histogram;
  BOOST_TEST(histogram.quantile_us(0.5) == 0);
  histogram.add(Duration(-5));
  BOOST_TEST(histogram.quantile_us(0.5) == 0);
  for (int i = 1; i <= 1000; ++i) histogram.add(std::chrono::microseconds(i));
  BOOST_TEST(histogram.quantile_us(0.5) >= 500);
  BOOST_TEST(histogram.quantile_us(0.5) <= 500 * 1.26);
  BOOST_TEST(histogram.quantile_us(0.99) >= 990);
  BOOST_TEST(histogram.quantile_us(0.99) <= 990 * 1.26);
  histogram.add(std::chrono::hours(10));
  BOOST_TEST(histogram.quantile_us(1.0) > 1e7);
}

// A wake-up ends a wait whether it comes before or while asleep; without one, the deadline does.
BOOST_AUTO_TEST_CASE(a_waiter_wakes) {
  Waiter waiter({.spin_max = std::chrono::microseconds(50)});
  const auto now = [] { return steady_clock().now(); };
  BOOST_TEST(!waiter.wait_until(now() + std::chrono::milliseconds(5)));
  waiter.wake();
  BOOST_TEST(waiter.wait_until(now() + std::chrono::seconds(10)));
  std::thread waker([&] { waiter.wake(); });
  BOOST_TEST(waiter.wait_until(now() + std::chrono::seconds(10)));
  waker.join();
}

/// Something to wait for that is due so long after each wait has begun to sleep; counts how often
/// it was polled before.
struct LateNews {
  Pollable pollable() {
    return {.progress = [this] { return poll(); },
            .arm = [this] { return come(); },
            .event_fd = event.get()};
  }
  bool poll() {
    uint64_t count;
    if (read(event.get(), &count, sizeof count) > 0) return true;
    ++num_polls;
    return false;
  }
  bool come() {
    const TimePoint due = steady_clock().now() + lateness;
    while (steady_clock().now() < due) continue;
    const uint64_t one = 1;
    return write(event.get(), &one, sizeof one) == static_cast<ssize_t>(sizeof one);
  }

  Duration lateness;
  UniqueFd event{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  int num_polls = 0;
};

/// Whether, of so many waits for such news by a waiter that had given up spinning, one spun.
bool spins_again(Duration lateness, int num_waits) {
  Waiter waiter({.spin_max = std::chrono::microseconds(50)});
  const auto soon = [](int64_t us) { return steady_clock().now() + std::chrono::microseconds(us); };
  for (int i = 0; i < 20; ++i) waiter.wait_until(soon(200));  // each halves the spin
  LateNews news{.lateness = lateness};
  waiter.add(news.pollable());
  for (int i = 0; i < num_waits; ++i) {
    news.num_polls = 0;
    BOOST_REQUIRE(waiter.wait_until(soon(10'000'000)));
    if (news.num_polls > 1) return true;
  }
  return false;
}

// In a ring of stages each waits for one that slept: what comes no later than a wake-up after the
// spin would have ended is worth spinning for, what comes later is not.
BOOST_AUTO_TEST_CASE(a_waiter_spins_again_once_it_pays) {
  BOOST_TEST(spins_again(std::chrono::microseconds(0), 1000));
  BOOST_TEST(spins_again(std::chrono::microseconds(100), 1000));
  BOOST_TEST(!spins_again(std::chrono::microseconds(1000), 50));
}

// Asleep on an idle link a thread uses no processor time to speak of.
BOOST_AUTO_TEST_CASE(an_idle_link_sleeps) {
  auto [send, receive] = make_loopback_pair(options());
  Waiter waiter({.spin_max = std::chrono::microseconds(50)});
  waiter.add(
      {[&] { return receive->progress(); }, [&] { return receive->arm(); }, receive->event_fd()});
  timespec before;
  timespec after;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
  BOOST_TEST(!waiter.wait_until(steady_clock().now() + std::chrono::milliseconds(300)));
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
  const double used_ms = static_cast<double>(after.tv_sec - before.tv_sec) * 1e3 +
                         static_cast<double>(after.tv_nsec - before.tv_nsec) * 1e-6;
  BOOST_TEST(used_ms < 3);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::transport
