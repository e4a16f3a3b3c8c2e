// The time of the slowest stage travels with the microbatch: patched in place by a stage on the
// way, put into the result by the last.
#include <boost/test/unit_test.hpp>
#include <cstring>

#include "actors/stage_loop.h"
#include "tests/fakes/fake_executor.h"
#include "transport/loopback.h"

namespace chainpump::actors {
namespace {

using namespace std::chrono_literals;
using fakes::FakeExecutor;

constexpr int64_t kPayloadBytes = FakeExecutor::kHidden * int64_t{sizeof(float)};

transport::LinkOptions edge_options(uint32_t edge) {
  return {.edge = EdgeId(edge),
          .epoch = PlanEpoch(1),
          .secret = 7,
          .slot_payload_bytes = kPayloadBytes,
          .slot_metadata_bytes = 8192};
}

/// What stage 5 of a chain sends on after 3 ms of work for a microbatch of one token.
std::vector<std::byte> sent_on(bool is_last, Duration slowest_before) {
  ManualClock clock;
  FakeExecutor executor({.stage = 5, .is_first = false, .is_last = is_last, .on_run = [&] {
                           clock.advance(3ms);
                           return ok_status();
                         }});
  auto [sender, input] = transport::make_loopback_pair(edge_options(0));
  auto [output, receiver] = transport::make_loopback_pair(edge_options(1));
  transport::Waiter waiter{transport::WaiterOptions{}};
  StageLoop loop(
      {.stage = StageIndex(5), .is_last = is_last, .sequencer = {}}, executor, std::move(input),
      std::move(output), [](const graph::Deliveries&) {}, waiter, clock);
  graph::Microbatch microbatch;
  microbatch.id = MicrobatchId(1);
  microbatch.slowest = slowest_before;
  microbatch.slowest_stage = StageIndex(2);
  microbatch.descriptors.resize(1);
  microbatch.descriptors[0].id = SequenceId(1);
  microbatch.slices = {{.id = SequenceId(1), .tokens = {1}, .new_blocks = {KvBlockId(0)}}};
  std::vector<std::byte> metadata;
  encode(microbatch, metadata);
  auto slot = sender->try_acquire();
  BOOST_REQUIRE(slot);
  std::memset(slot->payload().data(), 0, slot->payload().size());
  BOOST_REQUIRE(sender
                    ->send(std::move(slot), transport::FrameKind::activation, MicrobatchId(1),
                           metadata, kPayloadBytes)
                    .ok());
  const auto moved = loop.step();
  BOOST_REQUIRE(moved.ok() && *moved);
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

}  // namespace chainpump::actors
