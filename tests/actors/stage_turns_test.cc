// Several lanes on one rank: whose turn it is, what the rank waits for, and that no lane reaches
// beyond its share of the blocks.
#include "actors/stage_turns.h"

#include <boost/test/unit_test.hpp>

#include "actors/lane_executor.h"
#include "tests/fakes/fake_executor.h"
#include "tests/fakes/why.h"
#include "transport/loopback.h"

namespace chainpump::actors {
namespace {

using namespace std::chrono_literals;
using fakes::FakeExecutor;

constexpr int32_t kShare = 16;  // blocks of a lane

graph::SequencerOptions sequencer_options(uint8_t lane) {
  graph::SequencerOptions options;
  options.lane = lane;
  options.stages = {{"only", kShare}};
  options.context_tokens = 256;
  options.prefill_chunk_tokens = 8;
  options.max_microbatch_tokens = 16;
  options.max_sequences = 2;
  options.max_microbatches = 2;
  options.block_tokens = 16;
  options.vocabulary_size = FakeExecutor::kVocabulary;
  return options;
}

/// A rank that is the only stage of each of its lanes.
struct SharedRank {
  ManualClock clock;
  FakeExecutor executor{{.is_first = true, .is_last = true, .on_run = [this] {
                           clock.advance(1ms);
                           return ok_status();
                         }}};
  transport::Waiter waiter{transport::WaiterOptions{}};
  StepClock step_clock{clock};
  std::vector<std::unique_ptr<LaneExecutor>> views;
  std::vector<std::unique_ptr<StageLoop>> loops;
  std::optional<StageTurns> turns;
  std::vector<size_t> num_ended;

  explicit SharedRank(size_t num_lanes) : num_ended(num_lanes) {
    std::vector<StageLoop*> all;
    for (size_t lane = 0; lane < num_lanes; ++lane) {
      views.push_back(std::make_unique<LaneExecutor>(
          executor, LaneShare{.first_kv_block = KvBlockId(static_cast<int32_t>(lane) * kShare),
                              .num_kv_blocks = kShare,
                              .max_sequences = 2}));
      const transport::LinkOptions edge{
          .edge = EdgeId(static_cast<uint32_t>(lane)),
          .epoch = PlanEpoch(1),
          .secret = 7,
          .credits = 2,
          .slot_payload_bytes = 16 * FakeExecutor::kHidden * int64_t{sizeof(float)},
          .slot_metadata_bytes = 8192};
      auto [sender, receiver] = transport::make_loopback_pair(edge);
      const auto id = static_cast<uint8_t>(lane);
      loops.push_back(std::make_unique<StageLoop>(
          StageLoopOptions{.work = {.lane = id, .is_first = true, .is_last = true},
                           .trace = nullptr,
                           .sequencer = sequencer_options(id)},
          *views.back(),
          [this, lane](const graph::Deliveries& d) { num_ended[lane] += d.ended.size(); }, waiter,
          step_clock));
      loops.back()->link(std::move(receiver), std::move(sender), PlanEpoch(1));
      all.push_back(loops.back().get());
    }
    turns.emplace(all, step_clock, waiter);
  }
  void submit(size_t lane, int32_t max_new, std::optional<TimePoint> deadline = {}) {
    graph::Request request;
    request.id = RequestId(++last_request);
    request.deadline = deadline;
    request.prompt = {1, 2, 3};
    request.sampling.max_new_tokens = max_new;
    const Status taken = loops[lane]->sequencer().submit(std::move(request), clock.now());
    BOOST_REQUIRE_MESSAGE(taken.ok(), fakes::why(taken));
  }
  /// Turns until one step has been computed; false if there is nothing to compute.
  bool compute_one() {
    const size_t before = executor.seen().size();
    while (executor.seen().size() == before)
      if (!*turns->step()) return false;
    return true;
  }
  std::vector<uint64_t> steps() const {
    std::vector<uint64_t> of_each;
    for (const auto& loop : loops) of_each.push_back(loop->num_steps());
    return of_each;
  }
  uint64_t last_request = 0;
};

}  // namespace

BOOST_AUTO_TEST_CASE(lanes_take_turns_step_by_step) {
  SharedRank rank(3);
  for (size_t lane = 0; lane < 3; ++lane) rank.submit(lane, 30);
  for (int i = 0; i < 60; ++i) {
    BOOST_REQUIRE(rank.compute_one());
    const std::vector<uint64_t> steps = rank.steps();
    const auto [least, most] = std::minmax_element(steps.begin(), steps.end());
    BOOST_TEST(*most - *least <= 1u);
  }
  while (rank.compute_one()) continue;
  BOOST_TEST((rank.num_ended == std::vector<size_t>{1, 1, 1}));
  // What none asks for, another gets.
  const uint64_t before = rank.loops[1]->num_steps();
  rank.submit(1, 20);
  for (int i = 0; i < 20; ++i) BOOST_REQUIRE(rank.compute_one());
  BOOST_TEST(rank.loops[1]->num_steps() - before == 20u);
}

// However much one lane has to do, another that comes gets its turn within a step.
BOOST_AUTO_TEST_CASE(no_lane_is_starved) {
  SharedRank rank(2);
  rank.submit(0, 100);
  rank.submit(0, 100);
  for (int i = 0; i < 50; ++i) BOOST_REQUIRE(rank.compute_one());
  rank.submit(1, 10);
  const uint64_t others = rank.loops[0]->num_steps();
  while (rank.num_ended[1] == 0) BOOST_REQUIRE(rank.compute_one());
  BOOST_TEST(rank.loops[0]->num_steps() - others <= rank.loops[1]->num_steps() + 1);
}

BOOST_AUTO_TEST_CASE(time_is_counted_once_for_all_lanes) {
  SharedRank rank(2);
  const TimePoint began = rank.clock.now();
  rank.submit(0, 7);
  rank.submit(1, 9);
  while (rank.compute_one()) continue;
  (void)rank.turns->step();
  const uint64_t steps = rank.loops[0]->num_steps() + rank.loops[1]->num_steps();
  BOOST_TEST((rank.step_clock.spent(StepPart::compute) == steps * 1ms));
  BOOST_TEST((rank.step_clock.total() == rank.clock.now() - began));
}

// The rank waits for a deadline of any lane, and is idle only if all lanes are.
BOOST_AUTO_TEST_CASE(the_rank_waits_for_all_lanes_at_once) {
  SharedRank rank(2);
  rank.turns->wait_until(rank.clock.now());
  BOOST_TEST((rank.loops[0]->waiting_for() == StepPart::idle));
  BOOST_TEST(!rank.loops[1]->next_deadline());
  rank.submit(1, 5, rank.clock.now() + 3ms);
  BOOST_TEST((*rank.loops[1]->next_deadline() == rank.clock.now() + 3ms));
  BOOST_TEST((rank.loops[0]->waiting_for() == StepPart::idle));
  BOOST_REQUIRE(rank.compute_one());
  // One lane's result is there; the other is idle.
  rank.clock.advance(5ms);
  BOOST_TEST(*rank.turns->step());
  while (*rank.turns->step()) continue;
  BOOST_TEST(rank.num_ended[1] == 1u);
}

BOOST_AUTO_TEST_CASE(a_lane_reaches_no_blocks_but_its_own) {
  /// Keeps what it was given.
  class Recorder final : public models::StageExecutor {
   public:
    graph::Microbatch given;
    int32_t hidden_size() const override { return 4; }
    graph::MicrobatchLimits limits() const override {
      return {.max_tokens = 8,
              .max_sequences = 6,
              .context_tokens = 64,
              .num_kv_blocks = 30,
              .vocabulary_size = 100};
    }
    models::ExecutorStats stats() const override { return {}; }
    const models::SequenceTable& sequences() const override { return table; }
    std::span<std::byte> kv_block(int32_t, KvBlockId) override { return {}; }
    Status take_over(std::span<const graph::StageHoldings::Held>) override { return ok_status(); }
    models::SequenceTable table{limits()};
    Status run(const graph::Microbatch& microbatch, std::span<const float>, std::span<float>,
               graph::StepResult&) override {
      given = microbatch;
      return ok_status();
    }
  } executor;
  LaneExecutor third(executor,
                     {.first_kv_block = KvBlockId(20), .num_kv_blocks = 10, .max_sequences = 2});
  const graph::MicrobatchLimits limits = third.limits();
  BOOST_TEST(limits.num_kv_blocks == 10);
  BOOST_TEST(limits.max_sequences == 2);
  BOOST_TEST(limits.max_tokens == 8);
  BOOST_TEST(limits.context_tokens == 64);
  BOOST_TEST(&third.sequences() == &executor.table);
  graph::Microbatch microbatch;
  microbatch.id = MicrobatchId(1);
  microbatch.copies = {{KvBlockId(0), KvBlockId(9)}};
  microbatch.slices = {
      {.id = SequenceId(1), .tokens = {1}, .new_blocks = {KvBlockId(3), KvBlockId(9)}}};
  graph::StepResult result;
  BOOST_REQUIRE(third.run(microbatch, {}, {}, result).ok());
  BOOST_TEST(
      (executor.given.copies == std::vector{graph::BlockCopy{KvBlockId(20), KvBlockId(29)}}));
  BOOST_TEST((executor.given.slices[0].new_blocks == std::vector{KvBlockId(23), KvBlockId(29)}));
  BOOST_TEST((microbatch.slices[0].new_blocks[0] == KvBlockId(3)));
  microbatch.copies.clear();
  microbatch.slices[0].new_blocks.clear();  // as it comes
  BOOST_REQUIRE(third.run(microbatch, {}, {}, result).ok());
  BOOST_TEST((executor.given == microbatch));
  // A frame that names a block beyond the lane's share does not come so far.
  microbatch.slices[0].new_blocks = {KvBlockId(10)};
  std::vector<std::byte> bytes;
  encode(microbatch, bytes);
  BOOST_TEST(graph::decode_microbatch(bytes, executor.limits()).ok());
  BOOST_TEST(!graph::decode_microbatch(bytes, limits).ok());
}

}  // namespace chainpump::actors
