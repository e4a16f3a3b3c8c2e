#include "transport/rpc/convert.h"
#include "transport/rpc/fields.h"

namespace chainpump::transport::rpc {

void write(schema::LaneStats::Builder out, const LaneStats& in) {
  out.setNumTaken(in.num_taken);
  out.setNumFreeBlocks(in.num_free_blocks);
  out.setQueueRoom(in.queue_room);
  out.setWaitingTokens(in.waiting_tokens);
  out.setNumRunning(in.num_running);
  out.setTokensPerS(in.tokens_per_s);
  out.setEpoch(in.epoch);
  out.setCrossedAgoNs(in.crossed_ago_ns);
}

void read(schema::LaneStats::Reader in, LaneStats& out) {
  out.num_taken = in.getNumTaken();
  out.num_free_blocks = in.getNumFreeBlocks();
  out.queue_room = in.getQueueRoom();
  out.waiting_tokens = in.getWaitingTokens();
  out.num_running = in.getNumRunning();
  out.tokens_per_s = in.getTokensPerS();
  out.epoch = in.getEpoch();
  out.crossed_ago_ns = in.getCrossedAgoNs();
}

void write(schema::LinkBeat::Builder out, const LinkBeat& in) {
  out.setEdge(in.edge);
  out.setIncarnation(in.incarnation);
  out.setIsSender(in.is_sender);
  out.setSpoken(in.spoken);
  out.setHeard(in.heard);
  out.setLookedAgoNs(in.looked_ago_ns);
}

void read(schema::LinkBeat::Reader in, LinkBeat& out) {
  out.edge = in.getEdge();
  out.incarnation = in.getIncarnation();
  out.is_sender = in.getIsSender();
  out.spoken = in.getSpoken();
  out.heard = in.getHeard();
  out.looked_ago_ns = in.getLookedAgoNs();
}

void write(schema::StepTotals::Builder out, const StepTotals& in) {
  out.setSteps(in.steps);
  out.setBehind(in.behind);
  out.setSlow(in.slow);
  out.setMeasuredNs(in.measured_ns);
  out.setExpectedNs(in.expected_ns);
}

void read(schema::StepTotals::Reader in, StepTotals& out) {
  out.steps = in.getSteps();
  out.behind = in.getBehind();
  out.slow = in.getSlow();
  out.measured_ns = in.getMeasuredNs();
  out.expected_ns = in.getExpectedNs();
}

void write(schema::StageReport::Builder out, const StageReport& in) {
  write_bytes(out.initLanes(num(in.lanes)), in.lanes);
  out.setStage(in.stage);
  out.setLayerBegin(in.layer_begin);
  out.setLayerEnd(in.layer_end);
  out.setPid(in.pid);
  write_ints(out.initCores(num(in.cores)), in.cores);
  out.setWeightBytesRead(in.weight_bytes_read);
  out.setWeightBytesHeld(in.weight_bytes_held);
  out.setKvBytes(in.kv_bytes);
  out.setSteps(in.steps);
  out.setTokens(in.tokens);
  out.setTokensHeld(in.tokens_held);
  out.setTokensRebuilt(in.tokens_rebuilt);
  out.setFramesRefused(in.frames_refused);
  out.setFramesStale(in.frames_stale);
  out.setBusyNs(in.busy_ns);
  out.setTransferNs(in.transfer_ns);
  out.setBubbleInputNs(in.bubble_input_ns);
  out.setBubbleCreditNs(in.bubble_credit_ns);
  out.setBubbleOtherNs(in.bubble_other_ns);
  out.setWallNs(in.wall_ns);
  out.setNode(text(in.node));
}

void read(schema::StageReport::Reader in, StageReport& out) {
  out.lanes = read_bytes(in.getLanes());
  out.stage = in.getStage();
  out.layer_begin = in.getLayerBegin();
  out.layer_end = in.getLayerEnd();
  out.pid = in.getPid();
  out.cores = read_ints(in.getCores());
  out.weight_bytes_read = in.getWeightBytesRead();
  out.weight_bytes_held = in.getWeightBytesHeld();
  out.kv_bytes = in.getKvBytes();
  out.steps = in.getSteps();
  out.tokens = in.getTokens();
  out.tokens_held = in.getTokensHeld();
  out.tokens_rebuilt = in.getTokensRebuilt();
  out.frames_refused = in.getFramesRefused();
  out.frames_stale = in.getFramesStale();
  out.busy_ns = in.getBusyNs();
  out.transfer_ns = in.getTransferNs();
  out.bubble_input_ns = in.getBubbleInputNs();
  out.bubble_credit_ns = in.getBubbleCreditNs();
  out.bubble_other_ns = in.getBubbleOtherNs();
  out.wall_ns = in.getWallNs();
  out.node = text(in.getNode());
}

void write(schema::LinkReport::Builder out, const LinkReport& in) {
  out.setLane(in.lane);
  out.setEdge(in.edge);
  out.setOutgoing(in.outgoing);
  out.setTransport(in.transport.c_str());
  out.setFrames(in.frames);
  out.setPayloadBytes(in.payload_bytes);
  out.setMetadataBytes(in.metadata_bytes);
  out.setCopiedBytes(in.copied_bytes);
  out.setRefusedFrames(in.refused_frames);
  out.setLatencyP50Us(in.latency_p50_us);
  out.setLatencyP99Us(in.latency_p99_us);
  out.setBlockedOnCreditNs(in.blocked_on_credit_ns);
}

void read(schema::LinkReport::Reader in, LinkReport& out) {
  out.lane = in.getLane();
  out.edge = in.getEdge();
  out.outgoing = in.getOutgoing();
  out.transport = text(in.getTransport());
  out.frames = in.getFrames();
  out.payload_bytes = in.getPayloadBytes();
  out.metadata_bytes = in.getMetadataBytes();
  out.copied_bytes = in.getCopiedBytes();
  out.refused_frames = in.getRefusedFrames();
  out.latency_p50_us = in.getLatencyP50Us();
  out.latency_p99_us = in.getLatencyP99Us();
  out.blocked_on_credit_ns = in.getBlockedOnCreditNs();
}

void write(schema::LaneReport::Builder out, const LaneReport& in) {
  out.setLane(in.lane);
  out.setRunning(in.num_running);
  out.setWaiting(in.num_waiting);
  out.setKvBlocks(in.num_kv_blocks);
  out.setKvBlocksFree(in.num_free_kv_blocks);
}

void read(schema::LaneReport::Reader in, LaneReport& out) {
  out.lane = in.getLane();
  out.num_running = in.getRunning();
  out.num_waiting = in.getWaiting();
  out.num_kv_blocks = in.getKvBlocks();
  out.num_free_kv_blocks = in.getKvBlocksFree();
}

void write(schema::RankStats::Builder out, const RankStats& in) {
  write(out.initStage(), in.stage);
  write_list(out.initLinks(num(in.links)), in.links);
  write_list(out.initLanes(num(in.lanes)), in.lanes);
}

void read(schema::RankStats::Reader in, RankStats& out) {
  read(in.getStage(), out.stage);
  read_list(in.getLinks(), out.links);
  read_list(in.getLanes(), out.lanes);
}

}  // namespace chainpump::transport::rpc
