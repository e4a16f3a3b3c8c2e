#include "base/step_trace.h"

#include <boost/test/unit_test.hpp>
#include <memory>
#include <thread>

namespace chainpump {
namespace {

/// An event whose every field follows from its number.
StepEvent event(uint64_t number) {
  const auto at = [&](int64_t i) {
    return TimePoint{Duration(static_cast<int64_t>(number) * 10 + i)};
  };
  return {.microbatch = MicrobatchId(number),
          .lane = static_cast<uint8_t>(number % 251),
          .num_tokens = static_cast<int32_t>(number % 1000),
          .received = at(1),
          .credit_from = at(2),
          .credit_until = at(3),
          .compute_from = at(4),
          .compute_until = at(5),
          .sent = at(6)};
}

}  // namespace

BOOST_AUTO_TEST_SUITE(step_trace)

BOOST_AUTO_TEST_CASE(events_come_back_in_order_once) {
  StepTrace trace;
  BOOST_TEST(trace.read(0).events.empty());
  BOOST_TEST(trace.read(7).next == 7u);  // asking ahead of time
  BOOST_TEST(trace.read(7).lost == 0u);
  for (uint64_t n = 0; n < 5; ++n) trace.record(event(n));
  StepEvents part = trace.read(0);
  BOOST_REQUIRE_EQUAL(part.events.size(), 5u);
  for (uint64_t n = 0; n < 5; ++n) BOOST_TEST((part.events[n] == event(n)));
  BOOST_TEST(part.next == 5u);
  trace.record(event(5));
  part = trace.read(part.next);
  BOOST_REQUIRE_EQUAL(part.events.size(), 1u);
  BOOST_TEST((part.events[0] == event(5)));
  BOOST_TEST(part.lost == 0u);
}

BOOST_AUTO_TEST_CASE(old_events_are_overwritten_and_counted) {
  StepTrace trace;
  const uint64_t recorded = StepTrace::kCapacity + 100;
  for (uint64_t n = 0; n < recorded; ++n) trace.record(event(n));
  StepEvents part = trace.read(10);
  BOOST_TEST(part.lost == 90u);
  BOOST_TEST(part.events.size() == StepTrace::kMaxEvents);
  BOOST_TEST((part.events.front() == event(100)));
  part = trace.read(part.next);
  BOOST_TEST(part.lost == 0u);
  BOOST_TEST((part.events.back() == event(recorded - 1)));
  BOOST_TEST(part.next == recorded);
}

BOOST_AUTO_TEST_CASE(a_reader_beside_the_writer_sees_whole_events_or_none) {
  const auto trace = std::make_unique<StepTrace>();
  constexpr uint64_t kRecorded = 500'000;
  std::thread writer([&] {
    for (uint64_t n = 0; n < kRecorded; ++n) trace->record(event(n));
  });
  uint64_t next = 0;
  uint64_t seen = 0;
  uint64_t lost = 0;
  bool all_whole = true;
  while (next < kRecorded) {
    const StepEvents part = trace->read(next);
    uint64_t before = next;
    for (const StepEvent& e : part.events) {
      all_whole &= e == event(e.microbatch.value) && e.microbatch.value >= before;
      before = e.microbatch.value + 1;
    }
    seen += part.events.size();
    lost += part.lost;
    next = part.next;
  }
  writer.join();
  BOOST_TEST(all_whole);
  BOOST_TEST(seen > 0u);
  BOOST_TEST(seen + lost == kRecorded);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump
