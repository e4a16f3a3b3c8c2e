// The time of the slowest stage travels with the microbatch: patched in place by a stage on the
// way, put into the result by the last. And each stage's own account of its time: the trace of its
// steps, and parts that add up.
#include <array>
#include <atomic>
#include <boost/test/unit_test.hpp>
#include <cstring>
#include <thread>

#include "actors/stage_turns.h"
#include "tests/fakes/fake_executor.h"
#include "transport/loopback.h"

namespace chainpump::actors {
namespace {

using namespace std::chrono_literals;
using fakes::FakeExecutor;

constexpr int64_t kPayloadBytes = FakeExecutor::kHidden * int64_t{sizeof(float)};

transport::LinkOptions edge_options(uint32_t edge, int32_t credits = 4) {
  return {.edge = EdgeId(edge),
          .epoch = PlanEpoch(1),
          .secret = 7,
          .credits = credits,
          .slot_payload_bytes = 16 * kPayloadBytes,
          .slot_metadata_bytes = 8192};
}

/// One token of a sequence that begins with it.
std::vector<std::byte> one_token(uint64_t number, Duration slowest_before) {
  graph::Microbatch microbatch;
  microbatch.id = MicrobatchId(number);
  microbatch.slowest = slowest_before;
  microbatch.slowest_stage = StageIndex(2);
  if (number > 1) microbatch.released = {SequenceId(number - 1)};
  microbatch.descriptors.resize(1);
  microbatch.descriptors[0].id = SequenceId(number);
  microbatch.slices = {{.id = SequenceId(number), .tokens = {1}, .new_blocks = {KvBlockId(0)}}};
  std::vector<std::byte> metadata;
  encode(microbatch, metadata);
  return metadata;
}

bool try_send(transport::SendLink& sender, uint64_t number, Duration slowest_before) {
  auto slot = sender.try_acquire();
  if (!slot) return false;
  std::memset(slot->payload().data(), 0, slot->payload().size());
  const Status sent =
      sender.send(std::move(slot), transport::FrameKind::activation, MicrobatchId(number),
                  one_token(number, slowest_before), kPayloadBytes);
  BOOST_REQUIRE(sent.ok());
  return true;
}

/// What stage 5 of a chain sends on after 3 ms of work for a microbatch of one token.
std::vector<std::byte> sent_on(bool is_last, Duration slowest_before) {
  ManualClock clock;
  const auto trace = std::make_shared<StepTrace>();
  FakeExecutor executor({.stage = 5, .is_first = false, .is_last = is_last, .on_run = [&] {
                           clock.advance(3ms);
                           return ok_status();
                         }});
  auto [sender, input] = transport::make_loopback_pair(edge_options(0));
  auto [output, receiver] = transport::make_loopback_pair(edge_options(1));
  transport::Waiter waiter{transport::WaiterOptions{}};
  StepClock step_clock(clock);
  StageLoop loop(
      {.work = {.stage = StageIndex(5), .is_last = is_last}, .trace = trace, .sequencer = {}},
      executor, [](const graph::Deliveries&) {}, waiter, step_clock);
  loop.link(std::move(input), std::move(output), PlanEpoch(1));
  BOOST_REQUIRE(try_send(*sender, 1, slowest_before));
  const auto moved = loop.step();
  BOOST_REQUIRE(moved.ok() && *moved);
  const StepEvents recorded = trace->read(0);
  BOOST_REQUIRE_EQUAL(recorded.events.size(), 1u);
  const StepEvent& event = recorded.events[0];
  BOOST_TEST((event.microbatch == MicrobatchId(1) && event.num_tokens == 1));
  BOOST_TEST((event.compute_until - event.compute_from == 3ms));
  BOOST_TEST((event.credit_from == event.compute_from && event.credit_until == event.compute_from));
  receiver->progress();
  const auto frame = receiver->try_receive();
  BOOST_REQUIRE(frame);
  return {frame->metadata().begin(), frame->metadata().end()};
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_stage_on_the_way_notes_its_time_if_it_is_the_slowest) {
  const FakeExecutor executor({});
  for (const Duration before : {Duration(2ms), Duration(4ms)}) {
    const bool slower = before < 3ms;
    const auto microbatch = graph::decode_microbatch(sent_on(false, before), executor.limits());
    BOOST_REQUIRE(microbatch.ok());
    BOOST_TEST((microbatch->slowest == (slower ? Duration(3ms) : before)));
    BOOST_TEST(microbatch->slowest_stage.value == (slower ? 5 : 2));
    const auto result = graph::decode_step_result(sent_on(true, before), executor.limits());
    BOOST_REQUIRE(result.ok());
    BOOST_TEST((result->slowest == (slower ? Duration(3ms) : before)));
    BOOST_TEST(result->slowest_stage.value == (slower ? 5 : 2));
  }
}

namespace {

/// A stage that sleeps for its steps, in a thread of its own.
struct Sleeper {
  FakeExecutor executor;
  transport::Waiter waiter{transport::WaiterOptions{}};
  std::shared_ptr<StepTrace> trace = std::make_shared<StepTrace>();
  StepClock clock{steady_clock()};
  StageLoop loop;
  StageTurns turns{{&loop}, clock, waiter};
  Duration unaccounted{0};  // wall time less its parts

  Sleeper(int32_t stage, bool is_last, Duration step, std::unique_ptr<transport::ReceiveLink> input,
          std::unique_ptr<transport::SendLink> output)
      : executor({.stage = stage,
                  .is_first = false,
                  .is_last = is_last,
                  .on_run =
                      [step] {
                        std::this_thread::sleep_for(step);
                        return ok_status();
                      }}),
        loop(
            {.work = {.stage = StageIndex(stage), .is_last = is_last},
             .trace = trace,
             .sequencer = {}},
            executor, [](const graph::Deliveries&) {}, waiter, clock) {
    loop.link(std::move(input), std::move(output), PlanEpoch(1));
  }

  void run(const std::atomic<bool>& stop, TimePoint deadline) {
    (void)turns.step();  // charges what passed before this thread ran
    const Duration parts_before = clock.total();
    const TimePoint began = steady_clock().now();
    while (!stop && steady_clock().now() < deadline) {
      const auto moved = turns.step();
      if (!moved.ok()) return;
      if (!*moved) turns.wait_until(deadline);
    }
    unaccounted = steady_clock().now() - began - (clock.total() - parts_before);
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(the_parts_of_a_stage_s_time_add_up_to_the_wall_s) {
  constexpr uint64_t kSteps = 60;
  auto [sender, first_input] = transport::make_loopback_pair(edge_options(0));
  auto [forward, second_input] = transport::make_loopback_pair(edge_options(1, 2));
  auto [back, results] = transport::make_loopback_pair(edge_options(2, kSteps));
  // The second takes its time: the first fills its slots and waits.
  Sleeper first(1, false, 200us, std::move(first_input), std::move(forward));
  Sleeper second(2, true, 5ms, std::move(second_input), std::move(back));
  const TimePoint deadline = steady_clock().now() + 30s;
  std::atomic<bool> stop{false};
  std::thread threads[] = {std::thread([&] { first.run(stop, deadline); }),
                           std::thread([&] { second.run(stop, deadline); })};
  uint64_t num_sent = 0;
  uint64_t num_done = 0;
  while (num_done < kSteps && steady_clock().now() < deadline) {
    sender->progress();
    results->progress();
    if (num_sent < kSteps && try_send(*sender, num_sent + 1, 0ns)) ++num_sent;
    if (results->try_receive()) ++num_done;
    std::this_thread::yield();
  }
  stop = true;
  first.waiter.wake();
  second.waiter.wake();
  for (std::thread& thread : threads) thread.join();
  BOOST_REQUIRE(num_done == kSteps);
  for (const Sleeper* stage : {&first, &second}) {
    BOOST_TEST(std::abs(to_ms(stage->unaccounted)) <= 0.02 * to_ms(stage->clock.total()));
    const StepEvents recorded = stage->trace->read(0);
    BOOST_TEST(recorded.events.size() == kSteps);
    Duration compute{0};
    Duration credit{0};
    bool in_order = true;
    for (const StepEvent& e : recorded.events) {
      compute += e.compute_until - e.compute_from;
      credit += e.credit_until - e.credit_from;
      in_order &= e.received <= e.credit_from && e.credit_from <= e.credit_until &&
                  e.credit_until <= e.compute_from && e.compute_until <= e.sent;
    }
    BOOST_TEST(in_order);
    BOOST_TEST((compute == stage->clock.spent(StepPart::compute)));
    const bool waits = stage == &first;
    BOOST_TEST((credit > 5ms) == waits);
    BOOST_TEST((stage->clock.spent(StepPart::wait_credit) > 5ms) == waits);
  }
}

}  // namespace chainpump::actors
