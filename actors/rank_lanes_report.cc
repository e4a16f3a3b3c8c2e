// What a rank says of its lanes and their links.
#include "actors/rank_lanes.h"

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

}  // namespace

std::vector<LinkBoard::Seen> RankLanes::link_ends() const {
  std::vector<LinkBoard::Seen> ends;
  for (const Lane& lane : lanes_) {
    if (!lane.loop->at_work()) continue;
    const auto add = [&](const graph::EdgePlan& edge, uint32_t incarnation, bool is_sender,
                         const transport::LinkStats& stats) {
      ends.push_back({.beat = {.edge = edge.id.value,
                               .incarnation = incarnation,
                               .is_sender = is_sender,
                               .spoken = stats.spoken,
                               .heard = stats.heard},
                      .looked = lane.loop->looked_at_links()});
    };
    add(lane.input_edge, lane.input_incarnation, false, lane.loop->input_stats());
    add(lane.output_edge, lane.output_incarnation, true, lane.loop->output_stats());
  }
  return ends;
}

rpc::StepTotals RankLanes::step_totals() const {
  const graph::StepTotals& totals = account_.totals();
  return {.steps = totals.steps,
          .behind = totals.behind,
          .slow = totals.slow,
          .measured_ns = totals.measured.count(),
          .expected_ns = totals.expected.count()};
}

void RankLanes::report(rpc::RankStats& out) const {
  for (const Lane& lane : lanes_) out.stage.lanes.push_back(lane.id.value);
  const auto spent = [&](StepPart part) { return step_clock_.spent(part).count(); };
  out.stage.busy_ns = spent(StepPart::compute);
  out.stage.transfer_ns = spent(StepPart::transfer);
  out.stage.bubble_input_ns = spent(StepPart::wait_input);
  out.stage.bubble_credit_ns = spent(StepPart::wait_credit);
  out.stage.bubble_other_ns = spent(StepPart::idle);
  out.stage.wall_ns = step_clock_.total().count();
  const auto num_stages = static_cast<uint32_t>(plan_.stages.size());
  const auto own = static_cast<uint32_t>(stage_.value);
  for (const Lane& lane : lanes_) {
    out.stage.steps += lane.loop->num_steps();
    out.stage.tokens += lane.loop->num_tokens();
    out.stage.frames_refused += lane.loop->num_refused();
    out.stage.frames_stale += lane.loop->num_stale();
    out.stage.tokens_held += lane.loop->again().held;
    out.stage.tokens_rebuilt += lane.loop->again().rebuilt;
    out.links.push_back(
        link_report(lane.id, (own + num_stages - 1) % num_stages, false, lane.loop->input_stats()));
    out.links.push_back(link_report(lane.id, own, true, lane.loop->output_stats()));
    if (lane.server) out.lanes.push_back(lane.server->report(lane.id));
  }
}

}  // namespace chainpump::actors
