// The plan as a whole; its parts stand in convert.cc.
#include "transport/rpc/convert.h"

namespace chainpump::transport::rpc {

void write(schema::NodePlan::Builder out, const NodePlan& in) {
  out.setName(text(in.name));
  out.setNumCores(in.num_cores);
}

void read(schema::NodePlan::Reader in, NodePlan& out) {
  out.name = text(in.getName());
  out.num_cores = in.getNumCores();
}

void write(schema::ModelIdentity::Builder out, const ModelIdentity& in) {
  out.setBytes(in.bytes);
  out.setFingerprint(in.fingerprint);
  out.setContentLow(in.content_low);
  out.setContentHigh(in.content_high);
}

void read(schema::ModelIdentity::Reader in, ModelIdentity& out) {
  out.bytes = in.getBytes();
  out.fingerprint = in.getFingerprint();
  out.content_low = in.getContentLow();
  out.content_high = in.getContentHigh();
}

void write(schema::WeightSource::Builder out, const WeightSource& in) {
  out.setName(text(in.name));
  out.setIsCoordinator(in.is_coordinator);
  out.setAddress(text(in.address));
}

void read(schema::WeightSource::Reader in, WeightSource& out) {
  out.name = text(in.getName());
  out.is_coordinator = in.getIsCoordinator();
  out.address = text(in.getAddress());
}

void write(schema::Plan::Builder out, const Plan& in) {
  out.setEpoch(in.epoch);
  out.setModelPath(in.model_path.c_str());
  out.setContextTokens(in.context_tokens);
  out.setPrefillChunkTokens(in.prefill_chunk_tokens);
  out.setMaxMicrobatchTokens(in.max_microbatch_tokens);
  out.setMaxSequences(in.max_sequences);
  out.setMaxQueued(in.max_queued);
  out.setDecodeDelayNs(in.decode_delay_ns);
  out.setPrefixCache(in.prefix_cache);
  out.setReplayLogBytes(in.replay_log_bytes);
  out.setFailoverRestarts(in.failover_restarts);
  out.setFailoverWindowNs(in.failover_window_ns);
  out.setFailoverEvictsSlow(in.failover_evicts_slow);
  out.setMaxMicrobatches(in.max_microbatches);
  out.setExactActivations(in.exact_activations);
  write(out.initKv(), in.kv);
  write_list(out.initStages(static_cast<uint32_t>(in.stages.size())), in.stages);
  write_list(out.initEdges(static_cast<uint32_t>(in.edges.size())), in.edges);
  write_list(out.initNodes(static_cast<uint32_t>(in.nodes.size())), in.nodes);
  write(out.initModel(), in.model);
}

void read(schema::Plan::Reader in, Plan& out) {
  out.epoch = in.getEpoch();
  out.model_path = in.getModelPath().cStr();
  out.context_tokens = in.getContextTokens();
  out.prefill_chunk_tokens = in.getPrefillChunkTokens();
  out.max_microbatch_tokens = in.getMaxMicrobatchTokens();
  out.max_sequences = in.getMaxSequences();
  out.max_queued = in.getMaxQueued();
  out.decode_delay_ns = in.getDecodeDelayNs();
  out.prefix_cache = in.getPrefixCache();
  out.replay_log_bytes = in.getReplayLogBytes();
  out.failover_restarts = in.getFailoverRestarts();
  out.failover_window_ns = in.getFailoverWindowNs();
  out.failover_evicts_slow = in.getFailoverEvictsSlow();
  out.max_microbatches = in.getMaxMicrobatches();
  out.exact_activations = in.getExactActivations();
  read(in.getKv(), out.kv);
  read_list(in.getStages(), out.stages);
  read_list(in.getEdges(), out.edges);
  read_list(in.getNodes(), out.nodes);
  read(in.getModel(), out.model);
}

}  // namespace chainpump::transport::rpc
