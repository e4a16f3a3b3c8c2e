// A lane's requests across the deaths of its first rank: each ends once, with every token once and
// in order.
#include "actors/lane.h"

#include "tests/actors/lane_world.h"

namespace chainpump::actors {
namespace {

using namespace std::chrono_literals;
using Ints = std::vector<int32_t>;

Ints first_of(Ints all, int32_t count) {
  all.resize(static_cast<size_t>(count));
  return all;
}

/// The ways in which a lane learns that its rank has gone.
struct Loss {
  const char* name;
  void (*happen)(FakeRankPort&, const rpc::GenerateRequest&);
};
const Loss kLosses[] = {
    {"the watch ends",
     [](FakeRankPort& rank, const rpc::GenerateRequest&) { rank.watch_answer(gone()); }},
    {"the rank breaks down",
     [](FakeRankPort& rank, const rpc::GenerateRequest&) {
       rank.watch_answer(make_error(ErrorCode::no_room, "the disk is full"));
     }},
    {"attach fails",
     [](FakeRankPort& rank, const rpc::GenerateRequest&) { rank.attach_answer(gone()); }},
    {"submit fails", [](FakeRankPort& rank,
                        const rpc::GenerateRequest&) { rank.submitted.back().callback(gone()); }},
    {"the rank has no lane any more",
     [](FakeRankPort& rank, const rpc::GenerateRequest& request) {
       say_end(rank, request, request.sequence_index, gone());
     }},
    {"all of it",
     [](FakeRankPort& rank, const rpc::GenerateRequest& request) {
       rank.submitted.back().callback(gone());
       say_end(rank, request, request.sequence_index, gone());
       rank.watch_answer(gone());
       rank.attach_answer(gone());
     }},
    {"nobody noticed", [](FakeRankPort&, const rpc::GenerateRequest&) {}},
};

}  // namespace

BOOST_AUTO_TEST_CASE(what_was_told_is_not_told_again_and_the_rest_is) {
  for (const Loss& loss : kLosses) {
    for (int32_t done = 0; done <= 3; ++done) {
      BOOST_TEST_CONTEXT(loss.name << " after " << done << " of 4 tokens") {
        LaneWorld w;
        const auto old = w.open();
        Told told;
        SequenceRequest request = asked(3);
        request.sequence_index = 5;
        request.tenant = graph::TenantId(6);
        request.cache_salt = 7;
        request.priority = 8;
        w.submit(request, {&told});
        const rpc::GenerateRequest first = old->requests().at(0);
        BOOST_TEST(!first.readmitted);
        BOOST_TEST(Duration(first.timeout_ns) == w.kTimeout);
        say_tokens(*old, first, 5, 0, done);
        w.advance(3s);
        loss.happen(*old, first);
        const auto now = w.open();
        BOOST_REQUIRE_EQUAL(now->requests().size(), 1u);
        const rpc::GenerateRequest again = now->requests()[0];
        BOOST_TEST(again.request_id != first.request_id);
        BOOST_TEST(again.sequence_index == 5u);
        BOOST_TEST(again.num_sequences == 1);
        BOOST_TEST(again.prompt == first.prompt);
        BOOST_TEST(again.generated == first_of({13, 14, 15}, done));
        BOOST_TEST(again.readmitted);
        BOOST_TEST(again.sampling.seed == 42u);
        BOOST_TEST(again.tenant == 6u);
        BOOST_TEST(again.cache_salt == 7u);
        BOOST_TEST(again.priority == 8);
        BOOST_TEST(Duration(again.timeout_ns) == 7s);
        BOOST_TEST(Duration(now->submitted[0].deadline) == 7s);
        say_tokens(*old, first, 5, done, 1);  // too late
        say_end(*old, first, 5);
        say_tokens(*now, again, 5, 0, 4 - done, true);
        say_end(*now, again, 5);
        BOOST_TEST(told.text == "13 14 15 16 ok");
        BOOST_TEST(w.events == "open away open ");
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(a_sequence_whose_last_token_was_told_has_ended) {
  for (const Loss& loss : kLosses) {
    BOOST_TEST_CONTEXT(loss.name) {
      LaneWorld w;
      const auto old = w.open();
      Told told;
      w.submit(asked(3), {&told});
      const rpc::GenerateRequest first = old->requests().at(0);
      say_tokens(*old, first, 0, 0, 4, true);
      loss.happen(*old, first);
      const auto now = w.open();
      BOOST_TEST(told.text == "13 14 15 16 ok");
      BOOST_TEST(now->requests().empty());
    }
  }
}

BOOST_AUTO_TEST_CASE(of_several_sequences_those_that_run_go_on) {
  LaneWorld w;
  const auto old = w.open();
  Told a, b, c;
  w.submit(asked(3, 3), {&a, &b, &c});
  const rpc::GenerateRequest all = old->requests().at(0);
  BOOST_TEST(all.num_sequences == 3);
  say_tokens(*old, all, 0, 0, 2);
  say_tokens(*old, all, 1, 0, 1, true);
  say_end(*old, all, 1);
  old->watch_answer(gone());
  BOOST_TEST(b.text == "13 ok");
  const auto now = w.open();
  const auto again = now->requests();
  BOOST_REQUIRE_EQUAL(again.size(), 2u);
  BOOST_TEST(again[0].sequence_index == 0u);
  BOOST_TEST((again[0].generated == Ints{13, 14}));
  BOOST_TEST(again[1].sequence_index == 2u);
  BOOST_TEST(again[1].generated.empty());
  BOOST_TEST(again[0].request_id != again[1].request_id);
  for (const auto& request : again) BOOST_TEST(request.num_sequences == 1);
  say_tokens(*now, again[1], 2, 0, 1, true);
  say_end(*now, again[1], 2);
  say_tokens(*now, again[0], 0, 0, 1, true);
  say_end(*now, again[0], 0);
  BOOST_TEST(a.text == "13 14 15 ok");
  BOOST_TEST(c.text == "13 ok");
}

BOOST_AUTO_TEST_CASE(scores_go_on_where_they_were_or_with_their_file_from_the_first) {
  struct Case {
    const char* path;
    int32_t done, again_from;
  };
  for (const Case& c : {Case{"", 0, 2}, {"", 3, 5}, {"/f.npy", 0, 2}, {"/f.npy", 3, 2}}) {
    BOOST_TEST_CONTEXT(c.path << " after " << c.done << " scores") {
      LaneWorld w;
      const auto old = w.open();
      Told told;
      w.submit(to_score(9, 2, c.path), {&told});
      const rpc::GenerateRequest first = old->requests().at(0);
      say_scores(*old, first, 2, 2 + c.done);
      old->watch_answer(gone());
      const auto now = w.open();
      const rpc::GenerateRequest again = now->requests().at(0);
      BOOST_TEST(again.score.first_position == c.again_from);
      BOOST_TEST(again.score.full_path == c.path);
      BOOST_TEST(again.generated.empty());
      say_scores(*now, again, c.again_from, 8);
      say_end(*now, again, 0);
      BOOST_TEST(told.text == "2 3 4 5 6 7 ok");
    }
  }
}

BOOST_AUTO_TEST_CASE(scores_of_which_the_last_was_told_have_ended) {
  LaneWorld w;
  const auto old = w.open();
  Told told;
  w.submit(to_score(9, 2, "/f.npy"), {&told});
  say_scores(*old, old->requests().at(0), 2, 8);
  old->watch_answer(gone());
  BOOST_TEST(told.text == "2 3 4 5 6 7 ok");
}

BOOST_AUTO_TEST_CASE(an_answer_with_a_gap_breaks_off) {
  for (const bool lost : {false, true}) {
    LaneWorld w;
    const auto rank = w.open();
    Told tokens, scores, missing;
    w.submit(asked(3), {&tokens});
    w.submit(to_score(9, 2), {&scores});
    w.submit(asked(3), {&missing});
    const auto given = rank->requests();
    say_tokens(*rank, given[0], 0, 0, 1);
    say_tokens(*rank, given[0], 0, 2, 2, true);
    say_scores(*rank, given[1], 2, 4);
    say_scores(*rank, given[1], 5, 8);
    if (lost) {
      rank->watch_answer(gone());
      BOOST_TEST(missing.text.empty());
    } else {
      for (const auto& request : given) say_end(*rank, request, 0);
      BOOST_TEST(missing.text == "internal");
    }
    BOOST_TEST(tokens.text == "13 internal");
    BOOST_TEST(scores.text == "2 3 internal");
    BOOST_TEST(tokens.message.find("tokens were lost") == 0u);
    BOOST_TEST(scores.message.find("scores were lost") == 0u);
    BOOST_TEST(scores.message.find("at position 4") != std::string::npos);
  }
}

BOOST_AUTO_TEST_CASE(a_rank_that_dies_in_turn_is_replaced_too) {
  for (const bool at_once : {false, true}) {
    LaneWorld w;
    const auto old = w.open();
    Told told;
    w.submit(asked(3), {&told});
    say_tokens(*old, old->requests()[0], 0, 0, 1);
    old->watch_answer(gone());
    const auto middle = std::make_shared<FakeRankPort>();
    if (at_once) middle->attach_refused = gone();
    w.reopen(middle);
    if (!at_once) middle->attach_answer(gone());
    BOOST_TEST(w.events == "open away open away ");
    const auto now = w.open();
    const rpc::GenerateRequest again = now->requests().at(0);
    BOOST_TEST((again.generated == Ints{13}));
    say_tokens(*middle, middle->requests().at(0), 0, 0, 1);  // of no meaning any more
    say_tokens(*now, again, 0, 0, 2, true);
    say_end(*now, again, 0);
    BOOST_TEST(told.text == "13 14 15 ok");
  }
}

BOOST_AUTO_TEST_CASE(what_an_earlier_rank_says_is_void) {
  LaneWorld w;
  const auto old = w.open();
  Told told;
  w.submit(asked(3), {&told});
  const rpc::GenerateRequest first = old->requests()[0];
  const auto now = w.open();
  const rpc::GenerateRequest again = now->requests().at(0);
  rpc::GenerateRequest same_number = first;
  same_number.request_id = again.request_id;  // ranks do not know each other's
  say_tokens(*old, same_number, 0, 0, 1);
  say_end(*old, same_number, 0, make_error(ErrorCode::internal, "broken"));
  old->attach_answer(gone());
  old->watch_answer(gone());
  old->submitted[0].callback(make_error(ErrorCode::deadline_exceeded, "late"));
  BOOST_TEST(told.text.empty());
  BOOST_TEST(w.events == "open away open ");
  // And so is the news of an earlier one, or of this one again.
  const auto third = std::make_shared<FakeRankPort>();
  w.lane->reopen(third, PlanEpoch(1));
  w.lane->reopen(third, PlanEpoch(2));
  BOOST_TEST(third->calls.empty());
  say_tokens(*now, again, 0, 0, 1, true);
  say_end(*now, again, 0);
  BOOST_TEST(told.text == "13 ok");
}

BOOST_AUTO_TEST_CASE(a_rank_that_lost_no_more_than_the_connection_is_connected_to_again) {
  LaneWorld w;
  const auto rank = w.open();
  Told told;
  w.submit(asked(3), {&told});
  const rpc::GenerateRequest first = rank->requests()[0];
  say_tokens(*rank, first, 0, 0, 1);
  rank->watch_answer(gone());
  const auto again = std::make_shared<FakeRankPort>();
  w.lane->reopen(again, PlanEpoch(1));
  BOOST_TEST(w.events == "open away open ");
  BOOST_TEST(again->requests().at(0).generated.size() == 1u);
  say_tokens(*rank, first, 0, 1, 1);  // void: of the connection that was lost
  say_tokens(*again, again->requests()[0], 0, 0, 1, true);
  say_end(*again, again->requests()[0], 0);
  BOOST_TEST(told.text == "13 14 ok");
}

BOOST_AUTO_TEST_CASE(a_call_that_was_refused_ends_what_it_was_about) {
  LaneWorld w;
  const auto rank = w.open();
  Told late, full, other;
  w.submit(asked(3, 2), {&late, &late});
  w.submit(asked(3), {&full});
  w.submit(asked(3), {&other});
  rank->submitted[0].callback(make_error(ErrorCode::deadline_exceeded, "no answer in time"));
  rank->submitted[1].callback(make_error(ErrorCode::overloaded, "too many calls"));
  rank->submitted[2].callback(Ok{});
  BOOST_TEST(late.text == "deadline_exceededdeadline_exceeded");
  BOOST_TEST(full.text == "overloaded");
  BOOST_TEST(other.text.empty());
  BOOST_TEST(w.events == "open ");
}

BOOST_AUTO_TEST_CASE(what_is_given_again_comes_in_calls_of_bounded_size) {
  struct Case {
    size_t num_requests;
    int32_t num_prompt;
    std::vector<size_t> calls;
  };
  for (const Case& c : {Case{130, 3, {64, 64, 2}}, Case{5, 400'000, {2, 2, 1}}}) {
    LaneWorld w;
    const auto old = w.open();
    std::vector<Told> told(c.num_requests);
    for (Told& each : told) w.submit(asked(c.num_prompt), {&each});
    old->watch_answer(gone());
    const auto now = w.open();
    std::vector<size_t> calls;
    for (const FakeRankPort::Submitted& call : now->submitted)
      calls.push_back(call.requests.size());
    BOOST_TEST(calls == c.calls);
    const auto again = now->requests();
    BOOST_REQUIRE_EQUAL(again.size(), c.num_requests);
    for (size_t i = 0; i < again.size(); ++i) {
      say_tokens(*now, again[i], 0, 0, 1, true);
      say_end(*now, again[i], 0);
      BOOST_TEST(told[i].text == fmt::format("{} ok", 10 + c.num_prompt));
    }
  }
}

// The router counts what it has given a lane since it is open.
BOOST_AUTO_TEST_CASE(what_is_given_again_is_not_counted_as_taken) {
  LaneWorld w;
  const auto old = w.open();
  Told told;
  for (int i = 0; i < 3; ++i) w.submit(asked(3), {&told});
  old->watch_answer(gone());
  const auto now = w.open();
  for (const uint64_t num_taken : {1, 3, 5}) {
    rpc::LaneResults results;
    results.stats.num_taken = num_taken;
    now->results(results);
  }
  BOOST_REQUIRE_EQUAL(w.stats.size(), 3u);
  BOOST_TEST(w.stats[0].num_taken == 0u);
  BOOST_TEST(w.stats[1].num_taken == 0u);
  BOOST_TEST(w.stats[2].num_taken == 2u);
}

}  // namespace chainpump::actors
