#include "actors/rank_copies.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "graph/sequence_store.h"

namespace chainpump::actors {
namespace {

// A frame's payload: what a step may have to wait for is the time to send one.
constexpr int64_t kCopyBytes = 256 << 10;
constexpr int32_t kCopyCredits = 4;
// Their links have ids above those of all lanes', whatever the plan.
constexpr uint32_t kFirstEdge = uint32_t{1} << 24;
constexpr uint32_t kPartsMax = uint32_t{1} << 16;

using Held = graph::StageHoldings::Held;

/// Answers once with the first error, or when all of them are well.
class AllOf {
 public:
  AllOf(size_t count, rpc::Reply<Ok> reply)
      : shared_(std::make_shared<Shared>(Shared{count, std::move(reply)})) {}
  rpc::Reply<Ok> one() const {
    return rpc::Reply<Ok>([shared = shared_](Result<Ok> done) {
      if (shared->reply.answered()) return;
      if (!done.ok() || --shared->num_left == 0) shared->reply(std::move(done));
    });
  }

 private:
  struct Shared {
    size_t num_left;
    rpc::Reply<Ok> reply;
  };
  std::shared_ptr<Shared> shared_;
};

}  // namespace

RankCopies::RankCopies(const graph::Plan& plan, RankId rank, RankLanes& lanes,
                       models::StageExecutor& executor, transport::Waiter& waiter)
    : plan_(plan),
      stage_(place_of(plan, rank).stage),
      lanes_(lanes),
      executor_(executor),
      waiter_(waiter) {
  for (const graph::LaneId lane : graph::lanes_of(plan, rank)) served_.push_back(lane.value);
}

/// Of no lane.
graph::EdgePlan RankCopies::edge(const rpc::KvCopy& copy) const {
  graph::EdgePlan edge = plan_.edges.front();
  edge.id = EdgeId(kFirstEdge + copy.part);
  edge.credits = kCopyCredits;
  edge.slot_payload_bytes =
      std::max(kCopyBytes, graph::kv_sequence_bytes(std::max(0, copy.context_tokens)));
  edge.slot_metadata_bytes = graph::kKvFrameMetadataBytes;
  edge.checksum = graph::ChecksumPolicy::automatic;
  return edge;
}

std::vector<uint8_t> RankCopies::lanes_of(const rpc::KvCopy& copy) const {
  return copy.lanes.empty() ? served_ : copy.lanes;
}

Status RankCopies::check(const rpc::KvCopy& copy) const {
  const graph::StagePlan& stage = plan_.stages[static_cast<size_t>(stage_.value)];
  if (copy.layer_begin < stage.layer_begin || copy.layer_begin > copy.layer_end ||
      copy.layer_end > stage.layer_end)
    return make_error(ErrorCode::invalid_argument, "layers {} to {} are not this rank's",
                      copy.layer_begin, copy.layer_end);
  for (const uint8_t lane : copy.lanes)
    if (std::find(served_.begin(), served_.end(), lane) == served_.end())
      return make_error(ErrorCode::invalid_argument, "lane {} is not this rank's", lane);
  if (copy.part >= kPartsMax || copy.parts < 1 || copy.parts > kPartsMax)
    return make_error(ErrorCode::invalid_argument, "part {} of {} is none", copy.part, copy.parts);
  return ok_status();
}

// -------------------------------------------------------------------------------- as a newcomer

void RankCopies::take_in(TakeInCommand command) {
  const rpc::KvCopy& copy = command.copy;
  if (const Status good = check(copy); !good.ok()) return command.reply(good.error());
  if (!lanes_.all_cut() || executor_.sequences().num_sequences() > 0)
    return command.reply(
        make_error(ErrorCode::invalid_argument, "this rank holds something of its own"));
  if (taking_ != copy.incarnation || holds_them_) give_up_taking();
  taking_ = copy.incarnation;
  num_parts_ = copy.parts;
  auto address = lanes_.links().listen_for_copies();
  if (!address.ok()) return command.reply(address.error());
  auto link = lanes_.links().accept_copy(
      edge(copy), PlanEpoch(copy.epoch),
      {.edge = edge(copy).id.value, .secret = copy.secret, .incarnation = copy.incarnation});
  if (!link.ok()) return command.reply(link.error());
  KvSinkOptions options{.limits = {.lanes = lanes_of(copy),
                                   .num_blocks = plan_.kv.num_blocks,
                                   .layer_begin = copy.layer_begin,
                                   .layer_end = copy.layer_end,
                                   .context_tokens = plan_.context_tokens},
                        .first_block = [this](uint8_t lane) {
                          return first_kv_block(plan_, graph::LaneId(lane), stage_);
                        }};
  if (copy.layer_begin < copy.layer_end)
    options.limits.block_bytes = std::ssize(executor_.kv_block(copy.layer_begin, KvBlockId(0)));
  std::erase_if(sinks_, [&](const Sink& sink) { return sink.part == copy.part; });
  sinks_.push_back(
      {.part = copy.part,
       .lanes = lanes_of(copy),
       .sink = std::make_unique<KvSink>(std::move(options), executor_, *std::move(link), waiter_)});
  command.reply(rpc::KvAddress{address->first, address->second});
}

void RankCopies::give_up_taking() {
  sinks_.clear();
  num_parts_ = 0;
  holds_them_ = false;
}

bool RankCopies::step_sinks() {
  bool moved = false;
  for (const Sink& sink : sinks_) {
    const Result<bool> took = sink.sink->step();
    if (!took.ok()) {  // the senders notice
      give_up_taking();
      return true;
    }
    moved |= *took;
  }
  const bool all_came =
      sinks_.size() == num_parts_ && num_parts_ > 0 &&
      std::all_of(sinks_.begin(), sinks_.end(), [](const Sink& s) { return s.sink->done(); });
  if (all_came && !holds_them_) hold_what_came();
  return moved;
}

/// Of each sequence what all have sent who hold its lane: the rank needs all of its layers.
void RankCopies::hold_what_came() {
  std::map<uint8_t, size_t> num_senders;  // by lane
  struct Seen {
    Held held;
    size_t count = 0;
  };
  std::map<SequenceId, Seen> seen;
  for (const Sink& sink : sinks_) {
    for (const uint8_t lane : sink.lanes) ++num_senders[lane];
    for (const Held& held : sink.sink->held()) {
      Seen& each = seen.try_emplace(held.id, Seen{held}).first->second;
      const bool is_same = each.held.identity == held.identity && each.held.index == held.index &&
                           each.held.table == held.table;
      if (!is_same) continue;  // one of them knew it as it was
      each.held.num_positions = std::min(each.held.num_positions, held.num_positions);
      ++each.count;
    }
  }
  std::vector<Held> all;
  for (const auto& [id, each] : seen)
    if (each.count == num_senders[graph::SequenceStore::lane_of(id)]) all.push_back(each.held);
  if (!executor_.take_over(all).ok()) return give_up_taking();
  holds_them_ = true;
  lanes_.note_taken_over();
}

void RankCopies::take_arrived() {
  const auto is_done = [](const Sink& sink) { return sink.sink->done(); };
  for (int32_t i = 0; i <= kCopyCredits && !std::all_of(sinks_.begin(), sinks_.end(), is_done); ++i)
    step_sinks();
}

// -------------------------------------------------------------------------------- as who was there

void RankCopies::copy(CopyCommand command) {
  const rpc::KvCopy& copy = command.copy;
  if (const Status good = check(copy); !good.ok()) return command.reply(good.error());
  if (copying_ != copy.incarnation) {
    sources_.clear();
    num_begun_ = 0;
  }
  copying_ = copy.incarnation;
  auto link = lanes_.links().connect_copy(edge(copy), PlanEpoch(copy.epoch),
                                          {.edge = edge(copy).id.value,
                                           .address = copy.address,
                                           .port = copy.port,
                                           .secret = copy.secret,
                                           .incarnation = copy.incarnation});
  if (!link.ok()) return command.reply(link.error());
  sources_.push_back(std::make_unique<KvSource>(
      KvSourceOptions{
          .layer_begin = copy.layer_begin,
          .layer_end = copy.layer_end,
          .lanes = lanes_of(copy),
          .first_block =
              [this](uint8_t lane) { return first_kv_block(plan_, graph::LaneId(lane), stage_); },
          .progress = std::move(command.progress)},
      executor_, *std::move(link), waiter_, std::move(command.reply)));
  ++num_begun_;
}

void RankCopies::finish(FinishCopyCommand command) {
  if (sources_.empty() || !lanes_.all_cut())
    return command.reply(make_error(ErrorCode::invalid_argument,
                                    "this rank copies nothing, or its lanes are at work"));
  if (sources_.size() != num_begun_)
    return command.reply(make_error(ErrorCode::disconnected, "a copy has broken off"));
  const AllOf all(sources_.size(), std::move(command.reply));
  for (const auto& source : sources_) source->finish(all.one());
}

/// One frame of one of them: no step of the rank waits for more.
bool RankCopies::step_source() {
  bool moved = false;
  for (size_t i = 0; i < sources_.size() && !moved; ++i) {
    turn_ = (turn_ + 1) % sources_.size();
    moved = sources_[turn_]->step();
  }
  std::erase_if(sources_, [](const auto& source) { return source->over(); });
  return moved;
}

bool RankCopies::step() {
  const bool sent = step_source();
  return step_sinks() || sent;
}

bool RankCopies::connecting() const {
  return std::any_of(sources_.begin(), sources_.end(),
                     [](const auto& source) { return source->connecting(); }) ||
         std::any_of(sinks_.begin(), sinks_.end(),
                     [](const Sink& sink) { return sink.sink->connecting(); });
}

}  // namespace chainpump::actors
