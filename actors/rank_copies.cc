#include "actors/rank_copies.h"

#include <utility>

namespace chainpump::actors {
namespace {

// A frame's payload: what a step may have to wait for is the time to send one.
constexpr int64_t kCopyBytes = 256 << 10;
constexpr int32_t kCopyCredits = 4;

}  // namespace

RankCopies::RankCopies(const graph::Plan& plan, RankId rank, RankLanes& lanes,
                       models::StageExecutor& executor, transport::Waiter& waiter)
    : plan_(plan),
      stage_(place_of(plan, rank).stage),
      lanes_(lanes),
      executor_(executor),
      waiter_(waiter) {
  for (const graph::LaneId lane : lanes_of(plan, rank)) served_.push_back(lane.value);
}

/// Of no lane.
graph::EdgePlan RankCopies::edge() const {
  graph::EdgePlan edge = plan_.edges.front();
  edge.id =
      EdgeId(static_cast<uint32_t>(num_lanes(plan_)) * static_cast<uint32_t>(plan_.edges.size()));
  edge.credits = kCopyCredits;
  edge.slot_payload_bytes = std::max(kCopyBytes, graph::kv_sequence_bytes(plan_.context_tokens));
  edge.slot_metadata_bytes = graph::kKvFrameMetadataBytes;
  return edge;
}

Status RankCopies::check(const rpc::KvCopy& copy) const {
  const graph::StagePlan& stage = plan_.stages[static_cast<size_t>(stage_.value)];
  if (copy.layer_begin < stage.layer_begin || copy.layer_begin > copy.layer_end ||
      copy.layer_end > stage.layer_end)
    return make_error(ErrorCode::invalid_argument, "layers {} to {} are not this rank's",
                      copy.layer_begin, copy.layer_end);
  return ok_status();
}

void RankCopies::take_in(TakeInCommand command) {
  const rpc::KvCopy& copy = command.copy;
  if (const Status good = check(copy); !good.ok()) return command.reply(good.error());
  if (!lanes_.all_cut() || executor_.sequences().num_sequences() > 0)
    return command.reply(
        make_error(ErrorCode::invalid_argument, "this rank holds something of its own"));
  sink_.reset();
  auto link = lanes_.links().accept(
      edge(), PlanEpoch(copy.epoch),
      {.edge = edge().id.value, .secret = copy.secret, .incarnation = copy.incarnation});
  if (!link.ok()) return command.reply(link.error());
  KvSinkOptions options{.limits = {.lanes = served_,
                                   .num_blocks = plan_.kv.num_blocks,
                                   .layer_begin = copy.layer_begin,
                                   .layer_end = copy.layer_end,
                                   .context_tokens = plan_.context_tokens},
                        .first_block = [this](uint8_t lane) {
                          return first_kv_block(plan_, graph::LaneId(lane), stage_);
                        }};
  if (copy.layer_begin < copy.layer_end)
    options.limits.block_bytes = std::ssize(executor_.kv_block(copy.layer_begin, KvBlockId(0)));
  sink_ = std::make_unique<KvSink>(std::move(options), executor_, *std::move(link), waiter_);
  command.reply(Ok{});
}

void RankCopies::copy(CopyCommand command) {
  const rpc::KvCopy& copy = command.copy;
  if (const Status good = check(copy); !good.ok()) return command.reply(good.error());
  source_.reset();
  auto link = lanes_.links().connect(edge(), PlanEpoch(copy.epoch),
                                     {.edge = edge().id.value,
                                      .address = copy.address,
                                      .port = copy.port,
                                      .secret = copy.secret,
                                      .incarnation = copy.incarnation});
  if (!link.ok()) return command.reply(link.error());
  source_ = std::make_unique<KvSource>(
      KvSourceOptions{
          .layer_begin = copy.layer_begin,
          .layer_end = copy.layer_end,
          .first_block =
              [this](uint8_t lane) { return first_kv_block(plan_, graph::LaneId(lane), stage_); },
          .progress = std::move(command.progress)},
      executor_, *std::move(link), waiter_, std::move(command.reply));
}

void RankCopies::finish(FinishCopyCommand command) {
  if (!source_ || !lanes_.all_cut())
    return command.reply(make_error(ErrorCode::invalid_argument,
                                    "this rank copies nothing, or its lanes are at work"));
  source_->finish(std::move(command.reply));
}

bool RankCopies::step() {
  bool moved = false;
  if (source_) {
    moved = source_->step();
    if (source_->over()) source_.reset();
  }
  return step_sink() || moved;
}

bool RankCopies::step_sink() {
  if (!sink_) return false;
  const bool was_done = sink_->done();
  const Result<bool> took = sink_->step();
  if (!took.ok()) {
    sink_.reset();  // the sender notices
    return true;
  }
  if (!was_done && sink_->done()) lanes_.note_taken_over();
  return *took;
}

void RankCopies::take_arrived() {
  for (int32_t i = 0; i <= kCopyCredits && sink_ && !sink_->done(); ++i) step_sink();
}

bool RankCopies::connecting() const {
  return (source_ && source_->connecting()) || (sink_ && sink_->connecting());
}

}  // namespace chainpump::actors
