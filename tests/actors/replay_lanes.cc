#include "tests/actors/replay_lanes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <tuple>

#include "base/check.h"
#include "base/kv_layout.h"
#include "transport/loopback.h"

namespace chainpump::actors {
namespace {

using namespace std::chrono_literals;
using fakes::Random;

constexpr graph::StepCost::Coefficients kCost = {1e-4, 1e-5, 2e-8};

}  // namespace

/// A real executor whose steps take virtual time, and are noted.
class ReplayLanes::TimedExecutor final : public models::StageExecutor {
 public:
  TimedExecutor(std::unique_ptr<models::StageExecutor> executor, double slow,
                std::function<void(const graph::Microbatch&)> note, ManualClock& clock,
                Random& random)
      : executor_(std::move(executor)),
        slow_(slow),
        note_(std::move(note)),
        clock_(clock),
        random_(random) {}

  int32_t hidden_size() const override { return executor_->hidden_size(); }
  graph::MicrobatchLimits limits() const override { return executor_->limits(); }
  models::ExecutorStats stats() const override { return executor_->stats(); }
  const models::SequenceTable& sequences() const override { return executor_->sequences(); }
  std::span<std::byte> kv_block(int32_t layer, KvBlockId block) override {
    return executor_->kv_block(layer, block);
  }
  Status take_over(std::span<const graph::StageHoldings::Held> sequences) override {
    return executor_->take_over(sequences);
  }
  Status run(const graph::Microbatch& microbatch, std::span<const float> input,
             std::span<float> output, graph::StepResult& result) override {
    note_(microbatch);
    graph::StepWork work;
    for (const graph::SequenceSlice& slice : microbatch.slices)
      work.add(static_cast<int64_t>(slice.tokens.size()), slice.first_position);
    const double seconds = kCost.overhead_s + kCost.token_s * static_cast<double>(work.tokens) +
                           kCost.attended_s * work.attended;
    const double taken = seconds * slow_ * random_.uniform(0.8, 1.2);
    clock_.advance(Duration(static_cast<int64_t>(taken * 1e9)));
    return executor_->run(microbatch, input, output, result);
  }

 private:
  std::unique_ptr<models::StageExecutor> executor_;
  const double slow_;
  const std::function<void(const graph::Microbatch&)> note_;
  ManualClock& clock_;
  Random& random_;
};

ReplayChoices ReplayChoices::draw(const Setting& setting, Random& random) {
  constexpr int kWhole = (ReplayModel::kContext + kKvBlockTokens - 1) / kKvBlockTokens;
  ReplayChoices c;
  c.blocks = random.chance(4) ? 80 : kWhole + random.pick(4);
  c.max_tokens = random.chance(2) ? 8 + random.pick(40) : ReplayModel::kContext;
  const std::array chunks = {0, 0, 1, 7, 32, 100};
  c.chunk = std::min(chunks[static_cast<size_t>(random.pick(chunks.size()))], c.max_tokens);
  c.max_sequences = 2 + random.pick(10);
  c.max_queued = 8 + random.pick(40);
  c.max_microbatches = 1 + random.pick(setting.num_stages + 2);
  c.credits = 1 + random.pick(3);
  c.metadata_bytes = random.chance(3) ? 4000 : 60'000;
  for (int i = 0; i < setting.num_stages; ++i) c.shared.push_back(random.chance(3));
  c.arrivals = 1 + random.pick(12);
  c.decode_delay = random.up_to(2ms);
  if (setting.measured_chunks_at > 0) {  // nothing else may decide how long they are
    c.chunk = 0;
    c.blocks = 80;
    c.max_tokens = ReplayModel::kContext;
    c.max_microbatches = setting.num_stages;
    c.metadata_bytes = 60'000;
    c.decode_delay = 1ms;
  }
  return c;
}

std::string describe(const ReplayChoices& c) {
  return fmt::format(
      "{} blocks, chunk {}, {} tokens and {} sequences at most, {} microbatches, {} credits, {} "
      "bytes of metadata, stages shared: {}",
      c.blocks, c.chunk, c.max_tokens, c.max_sequences, c.max_microbatches, c.credits,
      c.metadata_bytes, fmt::join(c.shared, ", "));
}

ReplayLanes::ReplayLanes(const ReplayModel& model, const Setting& setting,
                         const ReplayChoices& choices, ManualClock& clock, Random& random,
                         StageLoop::OnDeliveries on_deliveries)
    : setting_(setting),
      choices_(choices),
      clock_(clock),
      random_(random),
      on_deliveries_(std::move(on_deliveries)) {
  for (int lane = 0; lane < setting.num_lanes; ++lane) make_lane(model, lane);
}

bool ReplayLanes::idle() {
  for (size_t lane = 0; lane < lanes_.size(); ++lane)
    if (!sequencer(lane).idle()) return false;
  return true;
}

graph::SequencerOptions ReplayLanes::sequencer_options(int lane) const {
  graph::SequencerOptions options;
  options.lane = static_cast<uint8_t>(lane);
  for (int i = 0; i < setting_.num_stages; ++i)
    options.stages.push_back({fmt::format("stage {}", i), choices_.blocks});
  options.block_tokens = kKvBlockTokens;
  options.context_tokens = ReplayModel::kContext;
  options.max_microbatch_tokens = choices_.max_tokens;
  options.max_metadata_bytes = choices_.metadata_bytes;
  options.prefill_chunk_tokens = choices_.chunk;
  options.max_sequences = choices_.max_sequences;
  options.max_queued = choices_.max_queued;
  options.max_microbatches = choices_.max_microbatches;
  options.vocabulary_size = ReplayModel::kVocabulary;
  options.prefix_cache = setting_.prefix_cache;
  options.decode_delay_max = choices_.decode_delay;
  options.cost_prior = {kCost.overhead_s * 2, kCost.token_s / 3, 0};
  return options;
}

std::shared_ptr<ReplayLanes::TimedExecutor> ReplayLanes::make_executor(const ReplayModel& model,
                                                                       int stage) {
  models::StageSpec spec;
  spec.layer_begin = ReplayModel::kLayers * stage / setting_.num_stages;
  spec.layer_end = ReplayModel::kLayers * (stage + 1) / setting_.num_stages;
  spec.has_embedding = stage == 0;
  spec.has_head = stage + 1 == setting_.num_stages;
  spec.kv_type = setting_.kv_type;
  spec.num_kv_blocks = choices_.blocks * setting_.num_lanes;
  spec.max_microbatch_tokens = choices_.max_tokens;
  spec.max_sequences = choices_.max_sequences * setting_.num_lanes;
  spec.context_tokens = ReplayModel::kContext;
  auto loaded = models::load_stage(model.path(), spec, {});
  CHECK_MSG(loaded.ok(), "{}", loaded.error().message);
  const auto note = [this, stage](const graph::Microbatch& microbatch) {
    for (const graph::SequenceSlice& slice : microbatch.slices)
      if (stage == 0 && !slice.sample) chunks_.push_back(static_cast<int32_t>(slice.tokens.size()));
  };
  const double slow = setting_.measured_chunks_at > 0 ? setting_.measured_chunks_at : 1;
  return std::make_shared<TimedExecutor>(std::move(*loaded), slow, note, clock_, random_);
}

void ReplayLanes::make_lane(const ReplayModel& model, int lane) {
  const auto count = static_cast<size_t>(setting_.num_stages);
  std::vector<std::unique_ptr<transport::SendLink>> senders(count);
  std::vector<std::unique_ptr<transport::ReceiveLink>> receivers(count);
  Lane& made = lanes_.emplace_back();
  for (size_t i = 0; i < count; ++i) {
    const bool last = i + 1 == count;
    const bool shared = lane > 0 && choices_.shared[i];
    executors_.push_back(shared ? executors_[i] : make_executor(model, static_cast<int>(i)));
    transport::LinkOptions edge;
    edge.edge = EdgeId(static_cast<uint32_t>(i));
    edge.epoch = PlanEpoch(1);
    edge.secret = 7;
    edge.credits = last ? choices_.max_microbatches : choices_.credits;
    edge.slot_payload_bytes =
        int64_t{choices_.max_tokens} * executors_.back()->hidden_size() * int64_t{sizeof(float)};
    edge.slot_metadata_bytes = last ? 60'000 : choices_.metadata_bytes;
    std::tie(senders[i], receivers[(i + 1) % count]) = transport::make_loopback_pair(edge);
  }
  for (size_t i = 0; i < count; ++i) {
    StageLoopOptions options;
    options.work.lane = static_cast<uint8_t>(lane);
    options.work.stage = StageIndex(static_cast<int32_t>(i));
    options.work.is_first = i == 0;
    options.work.is_last = i + 1 == count;
    if (options.work.is_first) options.sequencer = sequencer_options(lane);
    made.waiters.push_back(std::make_unique<transport::Waiter>(transport::WaiterOptions{}));
    made.clocks.push_back(std::make_unique<StepClock>(clock_));
    made.executors.push_back(std::make_unique<LaneExecutor>(
        *executors_[static_cast<size_t>(lane) * count + i],
        LaneShare{.first_kv_block = KvBlockId(lane * choices_.blocks),
                  .num_kv_blocks = choices_.blocks,
                  .max_sequences = choices_.max_sequences}));
    made.loops.push_back(std::make_unique<StageLoop>(options, *made.executors.back(),
                                                     on_deliveries_, *made.waiters.back(),
                                                     *made.clocks.back()));
    made.loops.back()->link(std::move(receivers[i]), std::move(senders[i]), PlanEpoch(1));
  }
}

}  // namespace chainpump::actors
