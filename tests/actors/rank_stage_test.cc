// One rank's life by hand: every command in every state.
#include "tests/actors/ranks.h"

namespace chainpump::actors {

using namespace std::chrono_literals;

BOOST_AUTO_TEST_CASE(commands_out_of_order_are_refused) {
  Ranks ranks(2);
  const auto refused = [](const auto& answer) {
    return answer.come() && !answer.ok() && answer.error().code == ErrorCode::invalid_argument;
  };
  BOOST_TEST(refused(ranks.connect(0)));
  BOOST_TEST(refused(ranks.submit(0, 1, 1)));
  BOOST_TEST(refused(ranks.watch(0)));
  Answer<rpc::RankStats> stats;
  ranks.stages[0]->stats({.reply = stats.reply()});
  BOOST_TEST(refused(stats));
  ranks.open();
  BOOST_TEST(refused(ranks.load(0, 1)));  // it is another
  BOOST_TEST(refused(ranks.connect(0)));
  BOOST_TEST(refused(ranks.submit(1, 1, 1)));  // only the first takes requests
  const auto running = ranks.submit(0, 1, 5);
  ranks.tick_until([&] { return running.come(); });
  BOOST_TEST(running.ok());
  BOOST_TEST(ranks.tokens.size() == 5u);
}

BOOST_AUTO_TEST_CASE(a_load_that_makes_no_sense_can_be_corrected) {
  Ranks ranks(1);
  const graph::Plan good = ranks.plan;
  const auto refused_as = [&](ErrorCode code) {
    const auto answer = ranks.load(0);
    return answer.come() && !answer.ok() && answer.error().code == code;
  };
  ranks.plan.model_path += ".missing";
  BOOST_TEST(refused_as(ErrorCode::not_found));
  ranks.plan = good;
  ranks.plan.kv.num_blocks = 0;
  BOOST_TEST(refused_as(ErrorCode::invalid_argument));
  ranks.plan = good;
  ranks.plan.edges[0].credits = 2000;  // more than a link can have
  BOOST_TEST(refused_as(ErrorCode::invalid_argument));
  ranks.plan = good;
  ranks.plan.stages[0].devices.clear();  // no lane
  BOOST_TEST(refused_as(ErrorCode::invalid_argument));
  ranks.plan = good;
  BOOST_TEST((ranks.load(0, 1).error().code == ErrorCode::invalid_argument));  // no such rank
  ranks.plan.edges.clear();
  BOOST_TEST(refused_as(ErrorCode::invalid_argument));
  ranks.plan = good;
  BOOST_TEST(ranks.load(0).ok());
}

BOOST_AUTO_TEST_CASE(a_failing_stage_tells_its_watcher_and_keeps_its_links) {
  Ranks ranks(3);
  ranks.open();
  const auto first = ranks.watch_links(0);
  const auto middle = ranks.watch_links(1);
  const auto last = ranks.watch(2);
  const auto doomed = ranks.submit(0, 1, 1, ranks.folder / "no folder" / "full.npy");
  ranks.tick_until([&] { return last.come(); });
  BOOST_TEST(last.error().message.find("full.npy") != std::string::npos);
  for (int i = 0; i < 3; ++i) {
    for (const auto& stage : ranks.stages) {
      stage->wake();
      if (stage->ticking()) stage->tick();
    }
  }
  BOOST_TEST(!first.come());  // it is not their fault
  BOOST_TEST(!middle.come());
  BOOST_TEST(!ranks.stages[2]->ticking());
  BOOST_TEST(ranks.watch(2).error().message == last.error().message);  // also who asks later
  BOOST_TEST(ranks.shutdown(2).ok());
  BOOST_TEST(ranks.stages[2]->gone());
  ranks.stages[2].reset();  // now its neighbours notice
  ranks.stages.pop_back();
  ranks.tick_until([&] { return first.come() && middle.come(); });
  BOOST_TEST((first.error().code == ErrorCode::disconnected));
  BOOST_TEST((middle.error().code == ErrorCode::disconnected));
  BOOST_TEST(!doomed.come());  // it waits for a repair, as does who comes now
  BOOST_TEST(!ranks.submit(0, 2, 1).come());
}

BOOST_AUTO_TEST_CASE(a_shutdown_in_every_state) {
  Ranks ranks(2);
  ranks.open();
  const auto running = ranks.submit(0, 1, 50);
  const auto watched = ranks.watch(0);
  ranks.tick_until([&] { return ranks.tokens.size() >= 3; });
  const TimePoint began = steady_clock().now();
  const auto first = ranks.shutdown(0);
  const auto second = ranks.shutdown(1);
  BOOST_TEST((running.error().code == ErrorCode::disconnected));
  BOOST_TEST((watched.error().code == ErrorCode::cancelled));
  BOOST_TEST((ranks.submit(0, 2, 1).error().code == ErrorCode::cancelled));
  BOOST_TEST((ranks.shutdown(0).error().code == ErrorCode::invalid_argument));
  ranks.tick_until([&] { return first.ok() && second.ok(); });
  BOOST_TEST(to_ms(steady_clock().now() - began) < 500.0);  // both closed: no deadline was needed
  BOOST_TEST(ranks.stages[0]->gone());

  Ranks empty(1);
  BOOST_TEST(empty.shutdown(0).ok());
  BOOST_TEST(empty.stages[0]->gone());

  Ranks lonely(2);  // stopped before its links are open
  BOOST_REQUIRE(lonely.load(0).ok());
  const auto opened = lonely.connect(0);
  const auto left = lonely.shutdown(0);
  BOOST_TEST((opened.error().code == ErrorCode::disconnected));
  BOOST_TEST(left.ok());
  BOOST_TEST(lonely.stages[0]->gone());
}

/// A client of its own, whose results go where the test says.
struct OtherClient {
  Ranks& ranks;
  std::map<uint64_t, Answer<Ok>> ends;
  Status taken = ok_status();
  explicit OtherClient(Ranks& given) : ranks(given) {
    Answer<Ok> answer;
    ranks.stages[0]->attach({.client = 2,
                             .sink = [this](const rpc::LaneResults& results) -> Status {
                               if (!taken.ok() && !(results.tokens.empty())) return taken;
                               for (const auto& end : results.ends)
                                 *ends[end.request_id].held = end.how;
                               return ok_status();
                             },
                             .reply = answer.reply()});
    BOOST_REQUIRE(answer.ok());
  }
  Answer<Ok> submit(uint64_t id, int32_t max_new) {
    SubmitCommand command{.client = 2, .requests = {{}}, .reply = Answer<Ok>().reply()};
    command.requests[0].request_id = id;
    command.requests[0].prompt = {1, 2, 3};
    command.requests[0].sampling.max_new_tokens = max_new;
    command.requests[0].sampling.ignore_eos = true;
    ranks.stages[0]->submit(std::move(command));
    return ends[id];
  }
};

BOOST_AUTO_TEST_CASE(a_sink_that_refuses_ends_what_it_refused_only) {
  Ranks ranks(2);
  ranks.open();
  OtherClient full(ranks);
  full.taken = make_error(ErrorCode::overloaded, "full");
  const auto refused = full.submit(9, 40);
  const auto other = ranks.submit(0, 9, 20);  // the same id of another client is another request
  ranks.tick_until([&] { return refused.come() && other.come(); });
  BOOST_TEST((refused.error().code == ErrorCode::overloaded));
  BOOST_TEST(other.ok());
  BOOST_TEST(ranks.tokens.size() == 20u);
}

// What a client chooses between lanes by: how it stands when the results were made, and how many
// requests of this client it counts.
BOOST_AUTO_TEST_CASE(results_say_how_the_lane_stands) {
  Ranks ranks(2);
  ranks.open();
  OtherClient other(ranks);
  const auto first = ranks.submit(0, 1, 20), second = ranks.submit(0, 2, 20);
  const auto third = other.submit(1, 20);  // two run at once: this one waits
  ranks.tick_until([&] { return ranks.tokens.size() >= 4; });
  BOOST_TEST(ranks.stats.num_taken == 2u);
  BOOST_TEST(ranks.stats.num_running == 2);
  BOOST_TEST(ranks.stats.queue_room == ranks.plan.max_queued - 1);
  BOOST_TEST(ranks.stats.waiting_tokens > 0);
  BOOST_TEST(ranks.stats.num_free_blocks < ranks.plan.kv.num_blocks);
  BOOST_TEST(ranks.stats.tokens_per_s > 0);
  (void)ranks.submit(0, 2, 20);  // refused, and counted
  ranks.ends[2] = second;
  BOOST_TEST(ranks.stats.num_taken == 3u);
  ranks.tick_until([&] { return first.come() && second.come() && third.come(); });
  const auto last = ranks.submit(0, 4, 20);
  ranks.tick_until([&] { return last.come(); });
  BOOST_TEST(ranks.stats.num_taken == 4u);
  BOOST_TEST(ranks.stats.num_running == 0);
  BOOST_TEST(ranks.stats.waiting_tokens == 0);
  BOOST_TEST(ranks.stats.queue_room == ranks.plan.max_queued);
}

BOOST_AUTO_TEST_CASE(a_client_that_leaves_takes_its_requests_along) {
  Ranks ranks(2);
  ranks.open();
  OtherClient leaving(ranks);
  const auto gone = leaving.submit(1, 50);
  const auto stays = ranks.submit(0, 2, 20);
  ranks.tick_until([&] { return ranks.tokens.size() >= 3; });
  ranks.stages[0]->detach({.client = 2});
  ranks.tick_until([&] { return stays.come(); });
  BOOST_TEST(stays.ok());
  BOOST_TEST(!gone.come());
  SubmitCommand late{.client = 2, .requests = {{}}, .reply = {}};
  Answer<Ok> refused;
  late.reply = refused.reply();
  ranks.stages[0]->submit(std::move(late));
  BOOST_TEST((refused.error().code == ErrorCode::invalid_argument));
  // Its place and its blocks are free: two of the most that fit run at once.
  const auto first = ranks.submit(0, 3, 40), second = ranks.submit(0, 4, 40);
  ranks.tick_until([&] { return first.come() && second.come(); });
  BOOST_TEST(first.ok());
  BOOST_TEST(second.ok());
}

BOOST_AUTO_TEST_CASE(a_request_ends_once_whatever_ends_it) {
  Ranks ranks(2);
  ranks.open();
  const auto cancelled = ranks.submit(0, 1, 50);
  const auto twice = ranks.submit(0, 1, 50);  // the id is taken: this one never ran
  BOOST_TEST((ranks.ends[1].error().code == ErrorCode::invalid_argument));
  ranks.ends[1] = cancelled;
  CancelCommand command;
  command.client = 1;
  command.request_ids = {1, 77};  // 77 is nobody's
  BOOST_TEST(ranks.tell(0, &RankStage::cancel, std::move(command)).ok());
  BOOST_TEST((cancelled.error().code == ErrorCode::cancelled));
  const auto late = ranks.submit(0, 2, 50, "", 1ns);
  ranks.tick_until([&] { return late.come(); });
  BOOST_TEST((late.error().code == ErrorCode::deadline_exceeded));
  const size_t before = ranks.num_messages;
  const size_t tokens_before = ranks.tokens.size();
  const auto a = ranks.submit(0, 3, 20), b = ranks.submit(0, 4, 20);
  ranks.tick_until([&] { return a.come() && b.come(); });
  BOOST_TEST(ranks.tokens.size() - tokens_before == 40u);
  BOOST_TEST(ranks.num_messages - before <= 40u);  // one a step at most
}

}  // namespace chainpump::actors
