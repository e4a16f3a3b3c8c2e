// Stage loops chained by loopback links over executors without a model: order, credits, cancels,
// failures, time; by hand in one thread, and with a thread for each.
#include "actors/stage_loop.h"

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <cstring>
#include <thread>

#include "tests/actors/chain.h"
#include "tests/fakes/why.h"

namespace chainpump::actors {
namespace {

using namespace std::chrono_literals;
using fakes::why;

void check_ascending(const std::vector<MicrobatchId>& ids) {
  for (size_t i = 0; i < ids.size(); ++i) BOOST_TEST(ids[i].value == i + 1);
}

}  // namespace

BOOST_AUTO_TEST_CASE(results_come_in_order_whatever_the_length) {
  for (const int32_t num_stages : {1, 2, 3, 7}) {
    Chain chain(num_stages);
    const RequestId a = chain.submit(50, 20);
    const RequestId b = chain.submit(3, 30);
    const RequestId c = chain.submit(17, 1);
    BOOST_REQUIRE(chain.run_dry().ok());
    BOOST_TEST(chain.tokens[a] == chain.expected(50, 20));
    BOOST_TEST(chain.tokens[b] == chain.expected(3, 30));
    BOOST_TEST(chain.tokens[c] == chain.expected(17, 1));
    BOOST_TEST(chain.num_finished == 3);
    BOOST_TEST(chain.first().sequencer().idle());
    BOOST_TEST(chain.first().sequencer().stats().num_free_blocks == kNumBlocks);
    for (const auto& executor : chain.executors) {
      check_ascending(executor->seen());
      BOOST_TEST(executor->seen().size() == chain.executors.front()->seen().size());
      BOOST_TEST(executor->released().size() == 3u);  // every stage forgets every sequence
    }
  }
}

BOOST_AUTO_TEST_CASE(a_stage_without_credit_waits_and_says_so) {
  Chain chain(2, {.credits = 1, .clock = &steady_clock(), .on_first_wire = {}, .on_run = {}});
  chain.submit(40, 4);
  while (*chain.first().step()) continue;
  BOOST_TEST(chain.first().num_steps() == 1u);  // the second waits for the only credit
  chain.turns[0].wait_until(steady_clock().now() + 2ms);
  BOOST_TEST((chain.clocks[0]->spent(StepPart::wait_credit) >= 2ms));
  BOOST_TEST((chain.clocks[0]->spent(StepPart::wait_input) == Duration(0)));
  BOOST_REQUIRE(chain.run_dry().ok());
  BOOST_TEST(chain.num_finished == 1);
  chain.turns[0].wait_until(steady_clock().now() + 1ms);
  BOOST_TEST((chain.clocks[0]->spent(StepPart::idle) >= 1ms));
  const Duration waited = chain.clocks[1]->spent(StepPart::wait_input);
  chain.turns[1].wait_until(steady_clock().now() + 1ms);
  BOOST_TEST((chain.clocks[1]->spent(StepPart::idle) >= 1ms));
  BOOST_TEST((chain.clocks[1]->spent(StepPart::wait_input) == waited));
}

BOOST_AUTO_TEST_CASE(time_is_accounted_to_the_nanosecond) {
  ManualClock clock;
  Chain chain(3, {.credits = 4,
                  .clock = &clock,
                  .on_first_wire = [&](std::span<std::byte>) { clock.advance(2us); },
                  .on_run =
                      [&](int32_t stage) {
                        clock.advance((stage + 1) * 1ms);
                        return ok_status();
                      }});
  const TimePoint began = clock.now();
  chain.submit(30, 12);
  BOOST_REQUIRE(chain.run_dry().ok());
  const StepClock& first = *chain.clocks[0];
  const StepClock& last = *chain.clocks[2];
  BOOST_TEST((first.spent(StepPart::compute) == chain.first().num_steps() * 1ms));
  BOOST_TEST((last.spent(StepPart::compute) == chain.loops[2]->num_steps() * 3ms));
  BOOST_TEST(chain.first().num_tokens() == 41u);
  for (const StepPart part : {StepPart::wait_input, StepPart::wait_credit, StepPart::idle})
    BOOST_TEST((first.spent(part) == Duration(0)));
  for (size_t i = 0; i < chain.loops.size(); ++i) {
    (void)chain.loops[i]->step();  // charges what passed while others ran
    BOOST_TEST((chain.clocks[i]->total() == clock.now() - began));
  }
}

BOOST_AUTO_TEST_CASE(a_cancel_in_mid_flight_touches_nobody_else) {
  for (int32_t steps_before = 0; steps_before < 12; ++steps_before) {
    Chain chain(3);
    const RequestId doomed = chain.submit(30, 100);
    const RequestId other = chain.submit(12, 25);
    for (int32_t i = 0; i < steps_before; ++i)
      for (const auto& loop : chain.loops) BOOST_REQUIRE(loop->step().ok());
    const size_t had = chain.tokens[doomed].size();
    chain.first().sequencer().cancel(doomed);
    BOOST_REQUIRE(chain.run_dry().ok());
    BOOST_TEST(chain.tokens[doomed].size() == had);
    BOOST_TEST(chain.tokens[other] == chain.expected(12, 25));
    BOOST_TEST(chain.num_finished == 1);
    BOOST_TEST(chain.first().sequencer().stats().num_free_blocks == kNumBlocks);
  }
}

BOOST_AUTO_TEST_CASE(a_deadline_ends_its_request_and_no_wait_outlasts_it) {
  Chain chain(2, {.credits = 1, .clock = &steady_clock(), .on_first_wire = {}, .on_run = {}});
  const TimePoint deadline = steady_clock().now() + 20ms;
  chain.submit(60, 100, deadline);
  while (*chain.first().step()) continue;  // the second has no say in it
  chain.turns[0].wait_until(steady_clock().now() + 60s);
  BOOST_TEST((steady_clock().now() < deadline + 20s));
  while (steady_clock().now() < deadline) continue;
  BOOST_REQUIRE(*chain.first().step());
  BOOST_REQUIRE(chain.ends.size() == 1u);
  BOOST_TEST((chain.ends[0].how.error().code == ErrorCode::deadline_exceeded));
  BOOST_REQUIRE(chain.run_dry().ok());
  BOOST_TEST(chain.first().sequencer().idle());
  BOOST_TEST(chain.executors[1]->released().size() == 1u);
}

BOOST_AUTO_TEST_CASE(an_executor_s_failure_is_the_loop_s) {
  int runs = 0;
  Chain chain(2, {.credits = 4,
                  .clock = &steady_clock(),
                  .on_first_wire = {},
                  .on_run = [&](int32_t stage) -> Status {
                    if (stage == 1 && ++runs == 3)
                      return make_error(ErrorCode::internal, "the device fell out");
                    return ok_status();
                  }});
  chain.submit(40, 4);
  const Status end = chain.run_dry();
  BOOST_REQUIRE(!end.ok());
  BOOST_TEST(end.error().message == "the device fell out");
}

BOOST_AUTO_TEST_CASE(a_corrupt_frame_ends_the_receiver) {
  bool corrupt = false;
  Chain chain(2, {.credits = 4,
                  .clock = &steady_clock(),
                  .on_first_wire =
                      [&](std::span<std::byte> message) {
                        if (corrupt) message.back() ^= std::byte{1};
                      },
                  .on_run = {}});
  corrupt = true;
  chain.submit(4, 4);
  BOOST_REQUIRE(*chain.first().step());
  BOOST_REQUIRE(chain.loops[1]->step().ok());
  BOOST_REQUIRE(chain.loops[1]->broken_by());
  BOOST_TEST(chain.loops[1]->broken_by()->message.find("input link: ") == 0u);
  BOOST_TEST(!chain.loops[1]->at_work());
  BOOST_TEST(chain.executors[1]->seen().empty());
}

BOOST_AUTO_TEST_CASE(a_vanished_neighbour_is_noticed_on_both_sides) {
  Chain chain(3);
  chain.submit(40, 4);
  BOOST_REQUIRE(*chain.first().step());
  chain.loops[1].reset();
  BOOST_REQUIRE(chain.first().step().ok());
  BOOST_REQUIRE(chain.loops[2]->step().ok());
  const std::optional<Error>& upstream = chain.first().broken_by();
  const std::optional<Error>& downstream = chain.loops[2]->broken_by();
  BOOST_REQUIRE((upstream && downstream));
  BOOST_TEST((upstream->code == ErrorCode::disconnected));
  BOOST_TEST(upstream->message.find("output link: ") == 0u);
  BOOST_TEST(downstream->message.find("input link: ") == 0u);
}

/// A last stage whose input is fed by hand.
struct Fed {
  std::unique_ptr<transport::SendLink> sender;
  std::unique_ptr<transport::ReceiveLink> returned;
  FakeExecutor executor{{.stage = 1, .is_first = false, .is_last = true, .on_run = {}}};
  transport::Waiter waiter{transport::WaiterOptions{}};
  StepClock clock{steady_clock()};
  std::unique_ptr<StageLoop> loop;

  Fed() {
    auto [send, receive] = transport::make_loopback_pair(chain_edge_options(0, 4));
    auto [result_send, result_receive] = transport::make_loopback_pair(chain_edge_options(1, 4));
    sender = std::move(send);
    returned = std::move(result_receive);
    loop = std::make_unique<StageLoop>(
        StageLoopOptions{
            .work = {.stage = StageIndex(1), .is_last = true}, .trace = nullptr, .sequencer = {}},
        executor, [](const graph::Deliveries&) {}, waiter, clock);
    loop->link(std::move(receive), std::move(result_send), PlanEpoch(1));
  }
  Result<bool> feed(transport::FrameKind kind, const std::vector<std::byte>& metadata,
                    int64_t payload_bytes) {
    auto slot = sender->try_acquire();
    BOOST_REQUIRE(slot);
    std::memset(slot->payload().data(), 0, slot->payload().size());
    BOOST_REQUIRE(
        sender->send(std::move(slot), kind, MicrobatchId(1), metadata, payload_bytes).ok());
    return loop->step();
  }
};

BOOST_AUTO_TEST_CASE(frames_that_make_no_sense_are_errors) {
  graph::Microbatch microbatch;
  microbatch.id = MicrobatchId(1);
  graph::SequenceDescriptor descriptor;
  descriptor.id = SequenceId(1);
  descriptor.prompt = {1, 2, 3};
  microbatch.descriptors = {descriptor};
  microbatch.slices = {
      {.id = SequenceId(1), .tokens = {1, 2, 3}, .new_blocks = {KvBlockId(0)}, .sample = true}};
  std::vector<std::byte> good;
  encode(microbatch, good);
  const auto bytes = int64_t{3} * FakeExecutor::kHidden * int64_t{sizeof(float)};
  const auto activation = transport::FrameKind::activation;
  BOOST_TEST(Fed().feed(activation, good, bytes).ok());
  BOOST_TEST(
      (Fed().feed(transport::FrameKind::result, good, bytes).error().code == ErrorCode::internal));
  BOOST_TEST((Fed().feed(activation, good, bytes - 4).error().code == ErrorCode::internal));
  BOOST_TEST((Fed().feed(activation, good, 0).error().code == ErrorCode::internal));
  BOOST_TEST(
      (Fed().feed(activation, std::vector<std::byte>(40, std::byte{0xff}), bytes).error().code ==
       ErrorCode::internal));
  for (size_t cut = 0; cut < good.size(); ++cut) {
    const std::vector<std::byte> part(good.begin(), good.begin() + static_cast<ptrdiff_t>(cut));
    BOOST_TEST((Fed().feed(activation, part, bytes).error().code == ErrorCode::internal),
               "cut to " << cut);
  }
}

BOOST_AUTO_TEST_CASE(a_thread_for_each_stage_and_a_clean_close) {
  for (const int32_t num_stages : {1, 2, 3}) {
    Chain chain(num_stages);
    const RequestId a = chain.submit(60, 150);
    const RequestId b = chain.submit(5, 200);
    std::atomic<bool> stop{false};
    std::atomic<int> failures{0};
    const TimePoint deadline = steady_clock().now() + 30s;
    std::vector<std::thread> threads;
    for (size_t i = 0; i < chain.loops.size(); ++i) {
      threads.emplace_back([&, stage = chain.loops[i].get(), turns = &chain.turns[i]] {
        while (!stop && steady_clock().now() < deadline) {
          const auto moved = turns->step();
          if (!moved.ok()) ++failures;
          if (!moved.ok()) return;
          if (!*moved) turns->wait_until(deadline);
          if (chain.num_finished < 2 || stop.exchange(true)) continue;
          for (const auto& waiter : chain.waiters) waiter->wake();
        }
        stage->close();
        while (!stage->closed() && steady_clock().now() < deadline) {
          stage->drain();
          turns->wait_until(steady_clock().now() + 1ms);
        }
        if (!stage->closed()) ++failures;
      });
    }
    for (std::thread& thread : threads) thread.join();
    BOOST_TEST(failures == 0);
    BOOST_TEST(chain.tokens[a] == chain.expected(60, 150));
    BOOST_TEST(chain.tokens[b] == chain.expected(5, 200));
  }
}

BOOST_AUTO_TEST_CASE(frames_under_way_do_not_hold_up_a_close) {
  Chain chain(3);
  chain.submit(60, 10);
  for (int i = 0; i < 3; ++i) BOOST_REQUIRE(chain.first().step().ok());
  BOOST_REQUIRE(chain.loops[1]->step().ok());
  const TimePoint deadline = steady_clock().now() + 500ms;
  for (const auto& loop : chain.loops) loop->close();
  const auto all_closed = [&] {
    return std::all_of(chain.loops.begin(), chain.loops.end(),
                       [](const auto& loop) { return loop->closed(); });
  };
  while (!all_closed() && steady_clock().now() < deadline) {
    for (size_t i = 0; i < chain.loops.size(); ++i) {
      chain.loops[i]->drain();
      chain.turns[i].wait_until(steady_clock().now());
    }
  }
  BOOST_TEST(all_closed());
}

}  // namespace chainpump::actors
