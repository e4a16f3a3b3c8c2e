// What ends a lane's requests but their last token: somebody's cancel, their time, the deployment's
// end, a full queue, while a rank serves them and while none does.
#include "actors/lane.h"
#include "tests/actors/lane_world.h"

namespace chainpump::actors {

using namespace std::chrono_literals;

BOOST_AUTO_TEST_CASE(a_cancel_reaches_the_rank_or_ends_what_waits) {
  LaneWorld w;
  const auto old = w.open();
  Told early, late, other;
  const RequestId first = w.submit(asked(3, 2), {&early, &early});
  const RequestId second = w.submit(asked(3), {&late});
  w.submit(asked(3), {&other});
  w.lane->cancel(RequestId(99));
  w.run_due();
  BOOST_TEST(old->cancelled.empty());
  w.lane->cancel(first);
  w.lane->cancel(first);
  BOOST_TEST(old->cancelled.empty());  // not in the caller's thread
  w.run_due();
  w.lane->cancel(first);
  w.run_due();
  BOOST_TEST(old->cancelled == std::vector<uint64_t>{old->requests()[0].request_id});
  say_end(*old, old->requests()[0], 0, make_error(ErrorCode::cancelled, ""));
  BOOST_TEST(early.text == "cancelled");
  old->watch_answer(gone());  // the other one's end was lost with it
  BOOST_TEST(early.text == "cancelledcancelled");
  BOOST_TEST(late.text.empty());
  w.lane->cancel(second);
  w.run_due();
  BOOST_TEST(late.text == "cancelled");
  const auto now = w.open();
  BOOST_REQUIRE_EQUAL(now->requests().size(), 1u);
  w.lane->cancel(second);
  w.run_due();
  BOOST_TEST(now->cancelled.empty());
  w.lane->cancel(RequestId(3));
  w.run_due();
  BOOST_TEST(now->cancelled == std::vector<uint64_t>{now->requests()[0].request_id});
}

/// Another thread's cancel comes to the rank before what it is about.
BOOST_AUTO_TEST_CASE(a_cancel_that_overtakes_its_request_is_passed_again) {
  LaneWorld w;
  const auto rank = w.open();
  rank->before_submit = [&] {
    w.lane->cancel(RequestId(1));
    w.run_due();
  };
  Told told;
  w.submit(asked(3), {&told});
  w.run_due();
  const std::vector<std::string> calls(rank->calls.begin(), rank->calls.end());
  BOOST_TEST(calls == (std::vector<std::string>{"attach", "watch", "cancel", "submit", "cancel"}),
             boost::test_tools::per_element());
  BOOST_TEST(rank->cancelled == std::vector<uint64_t>(2, rank->requests()[0].request_id));
}

BOOST_AUTO_TEST_CASE(time_that_is_up_while_nobody_serves_ends_a_sequence) {
  LaneWorld w;
  const auto old = w.open();
  Told given, waiting, patient;
  w.submit(asked(3), {&given}, 5s);
  w.submit(asked(3), {&patient}, 9s);
  say_tokens(*old, old->requests()[0], 0, 0, 2);
  w.advance(1s);
  old->watch_answer(gone());
  w.submit(asked(3), {&waiting}, 3s);
  w.advance(2999ms);
  BOOST_TEST(given.text == "13 14 ");
  BOOST_TEST(waiting.text.empty());
  w.advance(1ms);
  BOOST_TEST(given.text == "13 14 ");
  BOOST_TEST(waiting.text == "deadline_exceeded");
  w.advance(1s);
  BOOST_TEST(given.text == "13 14 deadline_exceeded");
  BOOST_TEST(given.message.find("the rank has gone") != std::string::npos, given.message);
  BOOST_TEST(patient.text.empty());
  // One whose time is up when a rank comes, before anybody looked.
  w.clock.advance(4s);
  const auto now = w.open();
  BOOST_TEST(now->requests().empty());
  BOOST_TEST(patient.text == "deadline_exceeded");
  // A rank that serves sees to it itself.
  Told served;
  w.submit(asked(3), {&served}, 1s);
  w.advance(2s);
  BOOST_TEST(served.text.empty());
}

BOOST_AUTO_TEST_CASE(who_comes_while_nobody_serves_waits_with_all_its_sequences) {
  LaneWorld w;
  Told a, b, c, d, e;
  w.submit(asked(3), {&a});
  w.advance(1s);
  w.submit(asked(4, 2), {&b, &c});
  Told refused;
  w.submit(asked(5, 2), {&refused, &refused});  // of four that may wait, three do
  BOOST_TEST(refused.text == "overloadedoverloaded");
  BOOST_TEST(refused.message.find("retry after") != std::string::npos);
  w.submit(asked(6), {&d});
  w.submit(asked(7), {&e});
  BOOST_TEST(e.text == "overloaded");
  BOOST_TEST(w.events == "");
  const auto rank = w.open();
  const auto given = rank->requests();
  BOOST_REQUIRE_EQUAL(given.size(), 3u);  // as they came
  BOOST_TEST(Duration(given[0].timeout_ns) == w.kTimeout - 1s);
  BOOST_TEST(given[0].prompt.size() == 3u);
  BOOST_TEST(given[1].prompt.size() == 4u);
  BOOST_TEST(given[1].num_sequences == 2);
  BOOST_TEST(given[2].prompt.size() == 6u);
  for (const auto& request : given) BOOST_TEST(!request.readmitted);
  say_tokens(*rank, given[1], 1, 0, 1, true);
  say_end(*rank, given[1], 1);
  say_end(*rank, given[0], 0, make_error(ErrorCode::overloaded, "the queue is full"));
  BOOST_TEST(a.text == "overloaded");  // that one's end
  BOOST_TEST(c.text == "14 ok");
  // Now they were given, and are not what waits in a queue. Others come after them.
  rank->watch_answer(gone());
  Told last;
  w.submit(asked(8), {&last});
  const auto again = w.open()->requests();
  BOOST_REQUIRE_EQUAL(again.size(), 3u);
  BOOST_TEST(again[0].prompt.size() == 4u);
  BOOST_TEST(again[0].readmitted);
  BOOST_TEST(again[1].prompt.size() == 6u);
  BOOST_TEST(again[1].readmitted);
  BOOST_TEST(again[2].prompt.size() == 8u);
  BOOST_TEST(!again[2].readmitted);
}

BOOST_AUTO_TEST_CASE(with_the_deployment_ends_what_waits) {
  LaneWorld w;
  const auto old = w.open();
  Told given, waiting, cancelled;
  w.submit(asked(3), {&given});
  const RequestId second = w.submit(asked(3), {&cancelled});
  say_tokens(*old, old->requests()[0], 0, 0, 1);
  old->watch_answer(gone());
  w.submit(asked(3), {&waiting});
  w.lane->cancel(second);
  w.outcome->set_failed(make_error(ErrorCode::internal, "stage 'a' died: five times"));
  w.outcome->set_stopped();
  w.lane->deployment_ended();
  BOOST_TEST(given.text == "13 ");  // not in the caller's thread
  w.run_due();
  BOOST_TEST(given.text == "13 internal");
  BOOST_TEST(given.message == "stage 'a' died: five times");
  BOOST_TEST(waiting.text == "internal");
  BOOST_TEST(cancelled.text == "internal");
  Told late;
  w.submit(asked(3), {&late});
  BOOST_TEST(late.message == "stage 'a' died: five times");
}

BOOST_AUTO_TEST_CASE(what_runs_when_the_deployment_ends_has_its_reason) {
  for (const bool stopped : {false, true}) {
    LaneWorld w;
    const auto rank = w.open();
    Told told, ended, whole;
    for (Told* each : {&told, &ended, &whole}) w.submit(asked(3), {each});
    if (stopped)
      w.outcome->set_stopped();
    else
      w.outcome->set_failed(make_error(ErrorCode::no_room, "the disk is full"));
    w.lane->deployment_ended();
    w.run_due();
    BOOST_TEST(told.text.empty());  // the rank may serve it yet
    say_tokens(*rank, rank->requests()[2], 0, 0, 1, true);
    say_end(*rank, rank->requests()[1], 0, make_error(ErrorCode::cancelled, "shut down"));
    rank->watch_answer(gone());
    for (const Told* each : {&told, &ended}) {
      BOOST_TEST(each->text == (stopped ? "cancelled" : "no_room"));
      BOOST_TEST(each->message == (stopped ? "the deployment was stopped" : "the disk is full"));
    }
    BOOST_TEST(whole.text == "13 ok");
  }
}

BOOST_AUTO_TEST_CASE(a_lane_that_is_left_ends_all_and_says_nothing_more) {
  for (const bool away : {false, true}) {
    LaneWorld w;
    const auto rank = w.open();
    Told told, whole;
    w.submit(asked(3), {&told});
    w.submit(asked(3), {&whole});
    say_tokens(*rank, rank->requests()[1], 0, 0, 1, true);
    if (away) rank->watch_answer(gone());
    w.lane->close();
    BOOST_TEST(told.text == "cancelled");
    BOOST_TEST(whole.text == "13 ok");
    say_tokens(*rank, rank->requests()[0], 0, 0, 1);
    rank->watch_answer(gone());
    BOOST_TEST(told.text == "cancelled");
    Told late;
    w.submit(asked(3), {&late});
    BOOST_TEST(late.text == "cancelled");
    const auto other = std::make_shared<FakeRankPort>();
    w.lane->reopen(other, PlanEpoch(9));
    BOOST_TEST(other->calls.empty());
    w.lane->close();
  }
}

BOOST_AUTO_TEST_CASE(a_callback_may_submit_and_cancel) {
  LaneWorld w;
  const auto rank = w.open();
  Told told, more;
  const RequestId id = w.submit(asked(3), {&told});
  told.on_token = [&] {
    if (more.text.empty() && rank->requests().size() == 1) w.submit(asked(4), {&more});
    w.lane->cancel(id);
  };
  say_tokens(*rank, rank->requests()[0], 0, 0, 2);
  BOOST_TEST(told.text == "13 14 ");
  BOOST_REQUIRE_EQUAL(rank->requests().size(), 2u);
  w.run_due();
  BOOST_TEST(rank->cancelled == std::vector<uint64_t>{rank->requests()[0].request_id});
  // And when the lane is lost, in the end of one that was over.
  say_tokens(*rank, rank->requests()[1], 0, 0, 1, true);
  rank->watch_answer(gone());
  BOOST_TEST(told.text == "13 14 cancelled");
  BOOST_TEST(more.text == "14 ok");
}

}  // namespace chainpump::actors
