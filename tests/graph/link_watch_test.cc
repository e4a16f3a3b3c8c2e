// Links between two ranks that are asked ten times a second, over a network that a test cuts.
#include "graph/link_watch.h"

#include <boost/test/unit_test.hpp>

namespace chainpump::graph {
namespace {

using namespace std::chrono_literals;

constexpr Duration kSilentMax = 550ms;

/// One link. Both ends look every 10 ms unless a test has them busy.
struct World {
  LinkWatch watch{kSilentMax};
  TimePoint now;
  LinkEnd sender{.link = EdgeId(3), .incarnation = LinkIncarnation(1), .is_sender = true};
  LinkEnd receiver{.link = EdgeId(3), .incarnation = LinkIncarnation(1)};
  bool frames_pass = true, credits_pass = true;
  bool sender_is_busy = false, receiver_is_busy = false;
  std::vector<LinkWatch::Silent> silent;

  void move(bool speaks) {
    sender.spoken += speaks;
    if (!receiver_is_busy) {
      receiver.looked = now;
      if (frames_pass) receiver.spoken = receiver.heard = sender.spoken;
    }
    if (!sender_is_busy) {
      sender.looked = now;
      if (credits_pass) sender.heard = receiver.spoken;
    }
  }
  void ask() {
    for (const LinkEnd& end : {sender, receiver})
      for (const auto& found : watch.on_answer({end}, now)) silent.push_back(found);
  }
  /// Steps of 10 ms; every tenth both are asked.
  void run(Duration time, bool speaks = true) {
    for (const TimePoint end = now + time; now < end; now = now + 10ms) {
      move(speaks);
      if (now.since_epoch % 100ms == 0ms) ask();
    }
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(link_watch)

BOOST_AUTO_TEST_CASE(nothing_is_told_of_links_that_carry_what_they_are_given) {
  World w;
  w.run(3s);
  w.run(3s, false);
  w.run(3s);
  BOOST_TEST(w.silent.empty());
}

BOOST_AUTO_TEST_CASE(either_direction_that_is_cut_is_found_in_time) {
  for (const bool frames : {true, false}) {
    World w;
    w.run(1s);
    (frames ? w.frames_pass : w.credits_pass) = false;
    const TimePoint cut = w.now;
    while (w.silent.empty()) {
      BOOST_REQUIRE((w.now - cut < 2s));
      w.run(100ms);
    }
    BOOST_TEST(to_ms(w.now - cut) <= 800);
    BOOST_TEST((w.silent.front().link == EdgeId(3)));
    BOOST_TEST(w.silent.front().frames == frames);
    BOOST_TEST(w.silent.front().missing > 0u);
    BOOST_TEST(to_ms(w.silent.front().silent_for) >= 550);
  }
}

BOOST_AUTO_TEST_CASE(it_is_told_again_as_long_as_it_is_so_and_the_next_incarnation_begins_anew) {
  World w;
  w.frames_pass = false;
  w.run(3s);
  BOOST_TEST(w.silent.size() >= 3u);
  w.silent.clear();
  w.sender = {.link = EdgeId(3), .incarnation = LinkIncarnation(2), .is_sender = true};
  w.ask();  // its other end says still what it said of the old one
  w.receiver = {.link = EdgeId(3), .incarnation = LinkIncarnation(2)};
  w.frames_pass = true;
  w.run(2s);
  BOOST_TEST(w.silent.empty());
}

BOOST_AUTO_TEST_CASE(an_idle_link_is_not_silent_until_something_is_said) {
  World w;
  w.frames_pass = false;
  w.run(5s, false);
  BOOST_TEST(w.silent.empty());
}

BOOST_AUTO_TEST_CASE(who_is_busy_has_not_looked) {
  for (const bool frames : {true, false}) {
    World w;
    w.run(1s);
    for (int i = 0; i < 5; ++i) {
      (frames ? w.receiver_is_busy : w.sender_is_busy) = true;
      w.run(3s);
      (frames ? w.receiver_is_busy : w.sender_is_busy) = false;
      w.run(10ms);
    }
    BOOST_TEST(w.silent.empty());
  }
}

BOOST_AUTO_TEST_CASE(a_stall_of_200_ms_anywhere_is_no_silence) {
  World w;
  for (int i = 0; i < 20; ++i) {
    w.frames_pass = i % 3 != 0;
    w.credits_pass = i % 3 != 1;
    w.receiver_is_busy = i % 3 == 2;
    w.run(200ms);
    w.frames_pass = w.credits_pass = true;
    w.receiver_is_busy = false;
    w.run(100ms);
    if (i % 5 == 0) w.now = w.now + 2s;  // who asks was stopped
  }
  BOOST_TEST(w.silent.empty());
}

BOOST_AUTO_TEST_CASE(who_asks_late_hears_of_it_late) {
  World w;
  w.run(1s);
  w.frames_pass = false;
  w.run(200ms);
  w.now = w.now + 5s;
  w.frames_pass = true;  // meanwhile
  w.run(2s);
  BOOST_TEST(w.silent.empty());
}

BOOST_AUTO_TEST_CASE(a_slow_network_that_brings_something_is_not_silent) {
  World w;
  w.frames_pass = false;
  for (int i = 0; i < 50; ++i) {
    w.run(400ms);
    ++w.receiver.heard;  // one of many that wait
  }
  BOOST_TEST(w.silent.empty());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
