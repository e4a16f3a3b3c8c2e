// What a rank that was told to harm itself does, by hand and over links.
#include "transport/armed_fault.h"

#include <boost/test/unit_test.hpp>
#include <deque>
#include <vector>

#include "tests/transport/conformance.h"
#include "transport/crc32c.h"
#include "transport/frame.h"

namespace chainpump::transport {

using namespace std::chrono_literals;
using Kind = FaultOrder::Kind;

BOOST_AUTO_TEST_SUITE(armed_fault)

BOOST_AUTO_TEST_CASE(a_death_comes_at_its_passing_of_its_point_once) {
  std::vector<FaultPoint> deaths;
  ArmedFault fault(steady_clock(), nullptr, [&](FaultPoint point) { deaths.push_back(point); });
  const auto pass_all = [&] {
    for (int i = 0; i < kNumFaultPoints; ++i) fault.pass(static_cast<FaultPoint>(i));
  };
  pass_all();
  BOOST_TEST(deaths.empty());
  for (int i = 0; i < kNumFaultPoints; ++i) {
    const auto point = static_cast<FaultPoint>(i);
    fault.arm({.kind = Kind::death, .point = point, .count = 3});
    pass_all();
    pass_all();
    BOOST_TEST(deaths.empty());
    pass_all();
    pass_all();
    if (point == FaultPoint::mid_frame) {  // where only a frame passes
      BOOST_TEST(deaths.empty());
      BOOST_TEST((!fault.dies_in_this_frame() && !fault.dies_in_this_frame() &&
                  fault.dies_in_this_frame() && !fault.dies_in_this_frame()));
    } else {
      BOOST_TEST((deaths == std::vector{point}));
    }
    deaths.clear();
  }
  fault.arm({.kind = Kind::death, .point = FaultPoint::fencing});
  fault.arm({});
  pass_all();
  BOOST_TEST(deaths.empty());
}

BOOST_AUTO_TEST_CASE(a_silence_is_over_when_its_time_is_or_another_fault_comes) {
  ManualClock clock;
  ArmedFault fault(clock);
  const auto silent = [&] { return std::pair(fault.silences_input(), fault.silences_output()); };
  BOOST_TEST((silent() == std::pair(false, false)));
  fault.arm({.kind = Kind::silence, .lasts = 2s, .of_input = true});
  BOOST_TEST((silent() == std::pair(true, false)));
  fault.arm({.kind = Kind::silence, .lasts = 2s, .of_output = true});
  clock.advance(1999ms);
  BOOST_TEST((silent() == std::pair(false, true)));
  clock.advance(1ms);
  BOOST_TEST((silent() == std::pair(false, false)));
  fault.arm({.kind = Kind::silence, .lasts = 2s, .of_input = true, .of_output = true});
  BOOST_TEST((silent() == std::pair(true, true)));
  fault.arm({});
  BOOST_TEST((silent() == std::pair(false, false)));
}

BOOST_AUTO_TEST_CASE(a_slow_step_takes_longer_and_beats_meanwhile) {
  Beat beat;
  ArmedFault fault(steady_clock(), &beat);
  const auto stretched = [&](Duration spent) {
    const TimePoint began = steady_clock().now();
    fault.stretch(spent);
    return steady_clock().now() - began;
  };
  BOOST_TEST(to_ms(stretched(1s)) < 500);
  fault.arm({.kind = Kind::slowness, .factor = 10, .lasts = 60s});
  BOOST_TEST(to_ms(stretched(10ms)) >= 90);
  BOOST_TEST(beat.count() >= 3u);
  fault.arm({.kind = Kind::slowness, .factor = 10, .lasts = 1ns});
  BOOST_TEST(to_ms(stretched(1s)) < 500);
}

BOOST_AUTO_TEST_CASE(what_makes_no_sense_is_refused) {
  for (const FaultOrder& order : {FaultOrder{.kind = Kind::death, .count = 0},
                                  FaultOrder{.kind = Kind::slowness, .factor = 1001, .lasts = 1s},
                                  FaultOrder{.kind = Kind::silence, .of_input = true},
                                  FaultOrder{.kind = Kind::silence, .lasts = 1s}})
    BOOST_TEST((check_fault(order).error().code == ErrorCode::invalid_argument));
  BOOST_TEST(check_fault({.kind = Kind::nothing, .count = 0}).ok());
}

// What is damaged is found, whichever bit of the frame it was, and the link ends.
BOOST_AUTO_TEST_CASE(a_damaged_frame_is_refused) {
  for (const LinkKind kind : {LinkKind::loopback, LinkKind::ucx_tcp, LinkKind::ucx_shared_memory})
    for (const bool of_header : {true, false})
      for (const bool has_crc : {true, false}) {
        ArmedFault fault(steady_clock());
        LinkOptions options = small_options();
        options.checksum_payload = has_crc;
        options.fault = &fault;
        Ends ends = open_ends(kind, options);
        fault.arm({.kind = Kind::damage, .count = 2, .of_header = of_header});
        BOOST_TEST(send_pattern(ends, 1, 10, 1000).ok());
        const auto frame = receive(ends);
        BOOST_REQUIRE(frame);
        BOOST_TEST(is_pattern(*frame, 1, 10, 1000));
        BOOST_TEST(send_pattern(ends, 2, 10, 1000).ok());
        BOOST_TEST(drive(ends, [&] { return ends.receive->state() == LinkState::failed; }));
        const char* const field = of_header || !has_crc ? "header_crc" : "body_crc";
        BOOST_TEST(ends.receive->error().message.find(field) != std::string::npos,
                   ends.receive->error().message);
        BOOST_TEST(ends.receive->stats().refused_frames == 1u);
        BOOST_TEST(drive(ends, [&] { return ends.send->state() == LinkState::failed; }));
      }
}

/// Frames of every size that are sent over silent links neither come nor fail, and come in order
/// when the silence is over.
void check_silence(LinkKind kind, bool of_sender) {
  ArmedFault fault(steady_clock());
  LinkOptions with = small_options(), without = with;
  with.slot_payload_bytes = without.slot_payload_bytes = 1 << 20;
  with.fault = &fault;
  Ends ends = of_sender ? make_ends(kind, with, without) : make_ends(kind, without, with);
  BOOST_REQUIRE(drive(ends, [&] {
    return ends.send->state() == LinkState::open && ends.receive->state() == LinkState::open;
  }));
  fault.arm({.kind = Kind::silence, .lasts = 60s, .of_input = !of_sender, .of_output = of_sender});
  const std::vector<size_t> sizes = {0, 5000, 1 << 20, 20};
  for (size_t i = 0; i < sizes.size(); ++i) BOOST_TEST(send_pattern(ends, i, 9, sizes[i]).ok());
  const TimePoint until = steady_clock().now() + 100ms;
  BOOST_TEST(drive(ends, [&] { return steady_clock().now() > until; }));
  BOOST_TEST(!ends.receive->try_receive());
  BOOST_TEST((ends.receive->state() == LinkState::open));
  BOOST_TEST((ends.send->state() == LinkState::open));
  fault.arm({});
  for (size_t i = 0; i < sizes.size(); ++i) {
    const auto frame = receive(ends);
    BOOST_REQUIRE(frame);
    BOOST_TEST(is_pattern(*frame, i, 9, sizes[i]));
  }
  BOOST_TEST(drive(ends, [&] { return ends.send->try_acquire() != nullptr; }));
  // Silent to its end.
  fault.arm({.kind = Kind::silence, .lasts = 60s, .of_input = !of_sender, .of_output = of_sender});
  for (size_t i = 0; i < sizes.size(); ++i) BOOST_TEST(send_pattern(ends, i, 9, sizes[i]).ok());
  BOOST_TEST(drive(ends, [&] { return steady_clock().now() > until; }));
  of_sender ? ends.send.reset() : ends.receive.reset();
}

BOOST_AUTO_TEST_CASE(a_silent_link_says_nothing_until_it_is_over) {
  for (const LinkKind kind : {LinkKind::ucx_tcp, LinkKind::ucx_shared_memory})
    for (const bool of_sender : {true, false}) check_silence(kind, of_sender);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::transport
