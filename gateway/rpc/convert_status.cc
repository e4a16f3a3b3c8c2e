#include <algorithm>

#include "gateway/rpc/convert.h"

namespace chainpump::gateway::rpc {
namespace {

void write(api::StageStatus::Builder out, const actors::StageReport& in) {
  std::vector<uint8_t> lanes;
  for (const graph::LaneId lane : in.lanes) lanes.push_back(lane.value);
  out.setLane(lanes.empty() ? 0 : lanes.front());
  write_bytes(out.initLanes(num(lanes)), lanes);
  out.setStage(in.stage.value);
  out.setLayerBegin(in.layer_begin);
  out.setLayerEnd(in.layer_end);
  out.setPid(in.pid);
  write_ints(out.initCores(num(in.cores)), in.cores);
  out.setWeightBytesRead(in.weight_bytes_read);
  out.setWeightBytesHeld(in.weight_bytes_held);
  out.setKvBytes(in.kv_bytes);
  out.setSteps(in.steps);
  out.setTokens(in.tokens);
  out.setTokensAgain(in.tokens_again);
  out.setBusyNs(in.busy.count());
  out.setTransferNs(in.transfer.count());
  out.setBubbleInputNs(in.bubble_input.count());
  out.setBubbleCreditNs(in.bubble_credit.count());
  out.setIdleNs(in.idle.count());
  out.setNode(text(in.node));
}

actors::StageReport read(api::StageStatus::Reader in) {
  std::vector<graph::LaneId> lanes;
  for (const uint8_t lane : read_bytes(in.getLanes())) lanes.push_back(graph::LaneId(lane));
  if (lanes.empty()) lanes.push_back(graph::LaneId(in.getLane()));
  return {.lanes = std::move(lanes),
          .stage = StageIndex(in.getStage()),
          .layer_begin = in.getLayerBegin(),
          .layer_end = in.getLayerEnd(),
          .pid = in.getPid(),
          .cores = read_ints(in.getCores()),
          .weight_bytes_read = in.getWeightBytesRead(),
          .weight_bytes_held = in.getWeightBytesHeld(),
          .kv_bytes = in.getKvBytes(),
          .steps = in.getSteps(),
          .tokens = in.getTokens(),
          .tokens_again = in.getTokensAgain(),
          .busy = Duration(in.getBusyNs()),
          .transfer = Duration(in.getTransferNs()),
          .bubble_input = Duration(in.getBubbleInputNs()),
          .bubble_credit = Duration(in.getBubbleCreditNs()),
          .idle = Duration(in.getIdleNs()),
          .node = text(in.getNode())};
}

void write(api::LaneStatus::Builder out, const actors::LaneReport& in) {
  out.setLane(in.lane.value);
  out.setRunning(in.num_running);
  out.setWaiting(in.num_waiting);
  out.setKvBlocks(in.num_kv_blocks);
  out.setKvBlocksFree(in.num_free_kv_blocks);
}

actors::LaneReport read(api::LaneStatus::Reader in) {
  return {.lane = graph::LaneId(in.getLane()),
          .num_running = in.getRunning(),
          .num_waiting = in.getWaiting(),
          .num_kv_blocks = in.getKvBlocks(),
          .num_free_kv_blocks = in.getKvBlocksFree()};
}

void write(api::LinkStatus::Builder out, const actors::LinkReport& in) {
  out.setLane(in.lane.value);
  out.setEdge(in.edge.value);
  out.setTransport(text(in.transport));
  out.setFrames(in.frames);
  out.setPayloadBytes(in.payload_bytes);
  out.setMetadataBytes(in.metadata_bytes);
  out.setCopiedBytes(in.copied_bytes);
  out.setLatencyP50Us(in.latency_p50_us);
  out.setLatencyP99Us(in.latency_p99_us);
}

actors::LinkReport read(api::LinkStatus::Reader in) {
  return {.lane = graph::LaneId(in.getLane()),
          .edge = EdgeId(in.getEdge()),
          .transport = text(in.getTransport()),
          .frames = in.getFrames(),
          .payload_bytes = in.getPayloadBytes(),
          .metadata_bytes = in.getMetadataBytes(),
          .copied_bytes = in.getCopiedBytes(),
          .latency_p50_us = in.getLatencyP50Us(),
          .latency_p99_us = in.getLatencyP99Us()};
}

constexpr int32_t kLanesMax = 64;
constexpr const char* kTransports[] = {"auto", "tcp", "shared_memory", "loopback"};
constexpr const char* kSpins[] = {"auto", "always", "never"};

/// The value whose name it is; of several deployments' names the first, which is "auto".
template <typename T, size_t N>
T by_name(const char* const (&names)[N], const std::string& name) {
  for (size_t i = 0; i < N; ++i)
    if (name == names[i]) return static_cast<T>(i);
  return static_cast<T>(0);
}

}  // namespace

void write(api::Deployment::Builder out, const DeploymentInfo& in) {
  const graph::Plan& plan = in.plan;
  out.setGraphName(text(in.graph_name));
  out.setGraphText(text(in.graph_text));
  out.setBuild(text(in.build));
  out.setIsa(text(in.isa));
  out.setVocabularySize(in.vocabulary_size);
  out.setHasChatTemplate(in.has_chat_template);
  out.setModelPath(text(plan.model_path));
  out.setContextTokens(plan.context_tokens);
  out.setLanes(num_lanes(plan));
  out.setMaxSequences(plan.max_sequences);
  out.setPrefillChunkTokens(plan.prefill_chunk_tokens);
  out.setExactActivations(plan.exact_activations);
  out.setKvType(std::string(to_string(plan.kv.type)).c_str());
  out.setKvBlockTokens(plan.kv.block_tokens);
  out.setKvBlocks(plan.kv.num_blocks);
  auto stages = out.initStages(num(plan.stages));
  for (uint32_t i = 0; i < stages.size(); ++i) {
    stages[i].setName(text(plan.stages[i].name));
    stages[i].setLayerBegin(plan.stages[i].layer_begin);
    stages[i].setLayerEnd(plan.stages[i].layer_end);
    stages[i].setThreads(plan.stages[i].num_threads);
    stages[i].setReplicas(num_replicas(plan, StageIndex(static_cast<int32_t>(i))));
  }
  if (plan.edges.empty()) return;
  out.setTransport(kTransports[static_cast<size_t>(plan.edges.front().transport)]);
  out.setSpin(kSpins[static_cast<size_t>(plan.edges.front().spin)]);
}

DeploymentInfo read(api::Deployment::Reader in) {
  DeploymentInfo out{.graph_name = text(in.getGraphName()),
                     .graph_text = text(in.getGraphText()),
                     .build = text(in.getBuild()),
                     .isa = text(in.getIsa()),
                     .vocabulary_size = in.getVocabularySize(),
                     .has_chat_template = in.getHasChatTemplate(),
                     .plan = {}};
  out.plan.model_path = text(in.getModelPath());
  out.plan.context_tokens = in.getContextTokens();
  out.plan.max_sequences = in.getMaxSequences();
  out.plan.prefill_chunk_tokens = in.getPrefillChunkTokens();
  out.plan.exact_activations = in.getExactActivations();
  if (const auto type = dtype_from_name(text(in.getKvType()))) out.plan.kv.type = *type;
  out.plan.kv.block_tokens = in.getKvBlockTokens();
  out.plan.kv.num_blocks = in.getKvBlocks();
  for (const auto stage : checked_list(in.getStages())) {
    graph::StagePlan& planned = out.plan.stages.emplace_back();
    planned.index = StageIndex(static_cast<int32_t>(out.plan.stages.size()) - 1);
    planned.name = text(stage.getName());
    planned.layer_begin = stage.getLayerBegin();
    planned.layer_end = stage.getLayerEnd();
    planned.num_threads = stage.getThreads();
    const int32_t replicas = stage.getReplicas() > 0 ? stage.getReplicas() : in.getLanes();
    planned.devices.resize(static_cast<size_t>(std::clamp(replicas, 1, kLanesMax)));
  }
  graph::EdgePlan edge;
  edge.transport = by_name<graph::TransportKind>(kTransports, text(in.getTransport()));
  edge.spin = by_name<graph::SpinPolicy>(kSpins, text(in.getSpin()));
  out.plan.edges.assign(out.plan.stages.size(), edge);
  return out;
}

void write(api::Status::Builder out, const StatusReport& in) {
  out.setPhase(static_cast<api::Phase>(in.phase));
  out.setMessage(text(in.message));
  out.setPid(in.pid);
  out.setUptimeNs(in.uptime.count());
  out.setRequests(in.num_requests);
  out.setSequences(in.num_sequences);
  out.setCompleted(in.num_completed);
  out.setFailed(in.num_failed);
  out.setCancelled(in.num_cancelled);
  out.setRefused(in.num_refused);
  out.setTokens(in.num_tokens);
  out.setTokensPerSecond(in.tokens_per_second);
  out.setTokensHeld(in.num_tokens_held);
  out.setNumericsId(text(in.stages.numerics_id));
  auto stages = out.initStages(num(in.stages.stages));
  for (uint32_t i = 0; i < stages.size(); ++i) write(stages[i], in.stages.stages[i]);
  auto links = out.initLinks(num(in.stages.links));
  for (uint32_t i = 0; i < links.size(); ++i) write(links[i], in.stages.links[i]);
  auto lanes = out.initLanes(num(in.stages.lanes));
  for (uint32_t i = 0; i < lanes.size(); ++i) write(lanes[i], in.stages.lanes[i]);
  out.setStagesMissing(text(in.stages_missing));
  write(out.initReadiness(), in.readiness);
}

StatusReport read(api::Status::Reader in) {
  StatusReport out;
  out.phase = checked(in.getPhase(), Phase::draining);
  out.message = text(in.getMessage());
  out.pid = in.getPid();
  out.uptime = Duration(in.getUptimeNs());
  out.num_requests = in.getRequests();
  out.num_sequences = in.getSequences();
  out.num_completed = in.getCompleted();
  out.num_failed = in.getFailed();
  out.num_cancelled = in.getCancelled();
  out.num_refused = in.getRefused();
  out.num_tokens = in.getTokens();
  out.tokens_per_second = in.getTokensPerSecond();
  out.num_tokens_held = in.getTokensHeld();
  out.stages.numerics_id = text(in.getNumericsId());
  for (const auto stage : checked_list(in.getStages())) out.stages.stages.push_back(read(stage));
  for (const auto link : checked_list(in.getLinks())) out.stages.links.push_back(read(link));
  for (const auto lane : checked_list(in.getLanes())) out.stages.lanes.push_back(read(lane));
  out.stages_missing = text(in.getStagesMissing());
  out.readiness = read(in.getReadiness());
  return out;
}

void write(api::Readiness::Builder out, const Readiness& in) {
  out.setReady(in.ready);
  out.setWhy(text(in.why));
  out.setCoordinatorAway(text(in.coordinator_away));
  auto lanes = out.initLanes(num(in.lanes));
  for (uint32_t i = 0; i < lanes.size(); ++i) {
    const graph::LaneHealth& lane = in.lanes[i];
    lanes[i].setLane(lane.lane.value);
    lanes[i].setState(static_cast<api::LaneState>(lane.state));
    lanes[i].setReady(lane.ready);
    lanes[i].setWhy(text(lane.why));
    if (lane.away_for) lanes[i].setAwayForNs(lane.away_for->count());
    if (lane.crossed_ago) lanes[i].setCrossedAgoNs(lane.crossed_ago->count());
    lanes[i].setSlow(text(lane.slow));
  }
}

Readiness read(api::Readiness::Reader in) {
  Readiness out{.ready = in.getReady(),
                .why = text(in.getWhy()),
                .coordinator_away = text(in.getCoordinatorAway())};
  const auto span = [](int64_t ns) { return ns < 0 ? std::nullopt : std::optional(Duration(ns)); };
  for (const auto lane : checked_list(in.getLanes()))
    out.lanes.push_back({.lane = graph::LaneId(lane.getLane()),
                         .state = checked(lane.getState(), graph::LaneHealth::State::away),
                         .ready = lane.getReady(),
                         .why = text(lane.getWhy()),
                         .away_for = span(lane.getAwayForNs()),
                         .crossed_ago = span(lane.getCrossedAgoNs()),
                         .slow = text(lane.getSlow())});
  return out;
}

void write(api::Event::Builder out, const Event& in) {
  out.setNumber(in.number);
  out.setUnixMs(in.unix_ms);
  out.setPhase(static_cast<api::Phase>(in.phase));
  out.setMessage(text(in.message));
}

Event read(api::Event::Reader in) {
  return {.number = in.getNumber(),
          .unix_ms = in.getUnixMs(),
          .phase = checked(in.getPhase(), Phase::draining),
          .message = text(in.getMessage())};
}

}  // namespace chainpump::gateway::rpc
