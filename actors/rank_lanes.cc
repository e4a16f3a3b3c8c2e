#include "actors/rank_lanes.h"

#include <algorithm>

#include "actors/sequencer_options.h"
#include "base/check.h"

namespace chainpump::actors {
namespace {

template <typename Link>
rpc::LinkReport link_report(graph::LaneId lane, uint32_t edge, bool outgoing, const Link& stats) {
  return {.lane = lane.value,
          .edge = edge,
          .outgoing = outgoing,
          .transport = stats.transport,
          .frames = stats.frames,
          .payload_bytes = stats.payload_bytes,
          .metadata_bytes = stats.metadata_bytes,
          .copied_bytes = stats.payload_copies_bytes,
          .refused_frames = stats.refused_frames,
          .latency_p50_us = stats.latency_p50_us,
          .latency_p99_us = stats.latency_p99_us,
          .blocked_on_credit_ns = stats.blocked_on_credit.count()};
}

/// What concerns the edge among what a rank was told to open, or null.
template <typename Target>
const Target* find_edge(const std::vector<Target>& targets, EdgeId edge) {
  const auto found = std::find_if(targets.begin(), targets.end(),
                                  [&](const Target& target) { return target.edge == edge.value; });
  return found == targets.end() ? nullptr : &*found;
}

}  // namespace

RankLanes::RankLanes(const graph::Plan& plan, RankId rank, std::shared_ptr<LoopbackHub> hub,
                     std::shared_ptr<transport::Waiter> waiter, std::shared_ptr<StepTrace> trace,
                     const Clock& clock)
    : plan_(plan),
      stage_(place_of(plan, rank).stage),
      waiter_(std::move(waiter)),
      trace_(std::move(trace)),
      clock_(clock),
      links_(std::move(hub)) {
  const auto own = static_cast<size_t>(stage_.value);
  for (const graph::LaneId id : lanes_of(plan, rank)) {
    Lane& lane = lanes_.emplace_back();
    lane.id = id;
    lane.input_edge = is_first() ? plan.edges.back() : plan.edges[own - 1];
    lane.output_edge = plan.edges[own];
    for (graph::EdgePlan* edge : {&lane.input_edge, &lane.output_edge})
      edge->id = link_of(plan, id, edge->id);
  }
}

RankLanes::~RankLanes() = default;

Result<std::pair<std::string, uint16_t>> RankLanes::listen(const std::string& address) {
  // The lanes' edges differ in nothing but their ids.
  return links_.listen(lanes_.front().input_edge, lanes_.front().output_edge, address);
}

Status RankLanes::open(const rpc::ConnectParams& params) {
  for (const Lane& lane : lanes_)
    if (params.links.size() != lanes_.size() || params.accept.size() != lanes_.size() ||
        !find_edge(params.links, lane.output_edge.id) ||
        !find_edge(params.accept, lane.input_edge.id))
      return make_error(ErrorCode::invalid_argument,
                        "a stage of a chain has one link in and one out for each of its lanes: "
                        "lane {} has {} in and {} out",
                        lane.id, lane.input_edge.id, lane.output_edge.id);
  for (Lane& lane : lanes_) {
    ASSIGN_OR_RETURN(lane.input, links_.accept(lane.input_edge, plan_.epoch,
                                               *find_edge(params.accept, lane.input_edge.id)));
    ASSIGN_OR_RETURN(lane.output, links_.connect(lane.output_edge, plan_.epoch,
                                                 *find_edge(params.links, lane.output_edge.id)));
  }
  return ok_status();
}

Result<bool> RankLanes::progress_opening() {
  bool all_open = true;
  for (Lane& lane : lanes_) {
    lane.input->progress();
    lane.output->progress();
    const auto check = [&](const auto& link, const char* which) -> Status {
      all_open &= link.state() == transport::LinkState::open;
      if (link.state() != transport::LinkState::failed) return ok_status();
      const Error& why = link.error();
      return named(lane, make_error(why.code, "{} link: {}", which, why.message));
    };
    RETURN_IF_ERROR(check(*lane.input, "input"));
    RETURN_IF_ERROR(check(*lane.output, "output"));
  }
  return all_open;
}

void RankLanes::start(models::StageExecutor& executor) {
  step_clock_.emplace(clock_);
  std::vector<StageLoop*> loops;
  for (Lane& lane : lanes_) {
    start(lane, executor);
    loops.push_back(lane.loop.get());
  }
  turns_.emplace(std::move(loops), *step_clock_, *waiter_);
}

void RankLanes::start(Lane& lane, models::StageExecutor& executor) {
  lane.executor = std::make_unique<LaneExecutor>(
      executor, LaneShare{.first_kv_block = first_kv_block(plan_, lane.id, stage_),
                          .num_kv_blocks = plan_.kv.num_blocks,
                          .max_sequences = plan_.max_sequences});
  StageLoopOptions options;
  options.lane = lane.id.value;
  options.stage = stage_;
  options.trace = trace_;
  options.is_first = is_first();
  options.is_last = static_cast<size_t>(stage_.value) + 1 == plan_.stages.size();
  if (is_first())
    options.sequencer = sequencer_options(plan_, lane.id, executor.limits().vocabulary_size);
  // Lanes stay where they are from here on.
  lane.loop = std::make_unique<StageLoop>(
      options, *lane.executor, std::move(lane.input), std::move(lane.output),
      [&lane](const graph::Deliveries& deliveries) { lane.server->deliver(deliveries); }, *waiter_,
      *step_clock_);
  if (is_first()) lane.server = std::make_unique<LaneServer>(plan_, lane.loop->sequencer(), clock_);
}

Result<bool> RankLanes::step() {
  Result<bool> moved = turns_->step();
  if (!moved.ok()) return named(lanes_[turns_->last()], moved.error());
  return moved;
}

Error RankLanes::named(const Lane& lane, const Error& error) const {
  if (lanes_.size() == 1) return error;
  return make_error(error.code, "lane {}: {}", lane.id, error.message);
}

LaneServer* RankLanes::door(graph::LaneId lane) {
  for (Lane& each : lanes_)
    if (each.id == lane) return each.server.get();
  return nullptr;
}

LaneServer* RankLanes::door_of(uint64_t client) {
  for (Lane& lane : lanes_)
    if (lane.server && lane.server->has(client)) return lane.server.get();
  return nullptr;
}

void RankLanes::end_all(const Error& why) {
  for (Lane& lane : lanes_)
    if (lane.server) lane.server->end_all(why);
}

void RankLanes::close() {
  for (Lane& lane : lanes_) lane.loop->close();
}

void RankLanes::drain() {
  for (Lane& lane : lanes_) lane.loop->drain();
}

bool RankLanes::closed() const {
  return std::all_of(lanes_.begin(), lanes_.end(),
                     [](const Lane& lane) { return lane.loop->closed(); });
}

void RankLanes::report(rpc::RankStats& out) const {
  for (const Lane& lane : lanes_) out.stage.lanes.push_back(lane.id.value);
  if (!turns_) return;
  const auto spent = [&](StepPart part) { return step_clock_->spent(part).count(); };
  out.stage.busy_ns = spent(StepPart::compute);
  out.stage.transfer_ns = spent(StepPart::transfer);
  out.stage.bubble_input_ns = spent(StepPart::wait_input);
  out.stage.bubble_credit_ns = spent(StepPart::wait_credit);
  out.stage.bubble_other_ns = spent(StepPart::idle);
  out.stage.wall_ns = step_clock_->total().count();
  const auto num_stages = static_cast<uint32_t>(plan_.stages.size());
  const auto own = static_cast<uint32_t>(stage_.value);
  for (const Lane& lane : lanes_) {
    out.stage.steps += lane.loop->num_steps();
    out.stage.tokens += lane.loop->num_tokens();
    out.links.push_back(
        link_report(lane.id, (own + num_stages - 1) % num_stages, false, lane.loop->input_stats()));
    out.links.push_back(link_report(lane.id, own, true, lane.loop->output_stats()));
    if (lane.server) out.lanes.push_back(lane.server->report(lane.id));
  }
}

}  // namespace chainpump::actors
