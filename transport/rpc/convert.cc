#include "transport/rpc/convert.h"

#include <string>
#include <utility>

#include "transport/rpc/loop.h"

namespace chainpump::transport::rpc {
namespace {

template <typename T>
uint32_t num(const std::vector<T>& values) {
  return static_cast<uint32_t>(values.size());
}

std::string text(capnp::Text::Reader in) { return std::string(in.begin(), in.size()); }

/// The schema's enums count like ours; `last` is the greatest known.
template <typename Ours, typename Theirs>
Ours checked(Theirs value, Ours last) {
  if (static_cast<int>(value) > static_cast<int>(last))
    kj::throwFatalException(
        to_exception(make_error(ErrorCode::invalid_argument,
                                "unknown value {} in a control message (an enum of at most {})",
                                static_cast<int>(value), static_cast<int>(last))));
  return static_cast<Ours>(value);
}

void write_ints(capnp::List<int32_t>::Builder out, const std::vector<int32_t>& in) {
  for (uint32_t i = 0; i < out.size(); ++i) out.set(i, in[i]);
}
void read_ints(capnp::List<int32_t>::Reader in, std::vector<int32_t>& out) {
  out.resize(in.size());
  for (uint32_t i = 0; i < in.size(); ++i) out[i] = in[i];
}

using Pairs = std::vector<std::pair<int32_t, float>>;
void write_pairs(capnp::List<schema::TokenFloat>::Builder out, const Pairs& in) {
  for (uint32_t i = 0; i < out.size(); ++i) {
    out[i].setToken(in[i].first);
    out[i].setValue(in[i].second);
  }
}
void read_pairs(capnp::List<schema::TokenFloat>::Reader in, Pairs& out) {
  out.clear();
  for (const auto pair : in) out.emplace_back(pair.getToken(), pair.getValue());
}

void write_bytes(capnp::List<capnp::Data>::Builder out, const std::vector<std::string>& in) {
  for (uint32_t i = 0; i < out.size(); ++i)
    out.set(i, kj::arrayPtr(reinterpret_cast<const kj::byte*>(in[i].data()), in[i].size()));
}
void read_bytes(capnp::List<capnp::Data>::Reader in, std::vector<std::string>& out) {
  out.clear();
  for (const auto data : in)
    out.emplace_back(reinterpret_cast<const char*>(data.begin()), data.size());
}

}  // namespace

void write(schema::LoadReport::Builder out, const LoadReport& in) {
  out.setNumericsId(in.numerics_id.c_str());
  out.setWeightBytesRead(in.weight_bytes_read);
  out.setWeightBytesHeld(in.weight_bytes_held);
  out.setKvBytes(in.kv_bytes);
  out.setListenAddress(in.listen_address.c_str());
  out.setListenPort(in.listen_port);
  out.setVocabularySize(in.vocabulary_size);
  out.setHiddenSize(in.hidden_size);
}

void read(schema::LoadReport::Reader in, LoadReport& out) {
  out.numerics_id = text(in.getNumericsId());
  out.weight_bytes_read = in.getWeightBytesRead();
  out.weight_bytes_held = in.getWeightBytesHeld();
  out.kv_bytes = in.getKvBytes();
  out.listen_address = text(in.getListenAddress());
  out.listen_port = in.getListenPort();
  out.vocabulary_size = in.getVocabularySize();
  out.hidden_size = in.getHiddenSize();
}

void write(schema::KvPlan::Builder out, const KvPlan& in) {
  out.setType(in.type.c_str());
  out.setBlockTokens(in.block_tokens);
  out.setNumBlocks(in.num_blocks);
}

void read(schema::KvPlan::Reader in, KvPlan& out) {
  out.type = text(in.getType());
  out.block_tokens = in.getBlockTokens();
  out.num_blocks = in.getNumBlocks();
}

void write(schema::StagePlan::Builder out, const StagePlan& in) {
  out.setIndex(in.index);
  out.setName(in.name.c_str());
  out.setLayerBegin(in.layer_begin);
  out.setLayerEnd(in.layer_end);
  out.setHasEmbedding(in.has_embedding);
  out.setHasHead(in.has_head);
  out.setDeviceKind(in.device_kind.c_str());
  write_ints(out.initCores(num(in.cores)), in.cores);
  out.setNumThreads(in.num_threads);
  out.setWeightBytes(in.weight_bytes);
  out.setKvBytes(in.kv_bytes);
  out.setSlotBytes(in.slot_bytes);
  out.setPredictedDecodeS(in.predicted_decode_s);
  out.setPredictedPrefillS(in.predicted_prefill_s);
}

void read(schema::StagePlan::Reader in, StagePlan& out) {
  out.index = in.getIndex();
  out.name = text(in.getName());
  out.layer_begin = in.getLayerBegin();
  out.layer_end = in.getLayerEnd();
  out.has_embedding = in.getHasEmbedding();
  out.has_head = in.getHasHead();
  out.device_kind = text(in.getDeviceKind());
  read_ints(in.getCores(), out.cores);
  out.num_threads = in.getNumThreads();
  out.weight_bytes = in.getWeightBytes();
  out.kv_bytes = in.getKvBytes();
  out.slot_bytes = in.getSlotBytes();
  out.predicted_decode_s = in.getPredictedDecodeS();
  out.predicted_prefill_s = in.getPredictedPrefillS();
}

void write(schema::EdgePlan::Builder out, const EdgePlan& in) {
  out.setId(in.id);
  out.setFrom(in.from);
  out.setTo(in.to);
  out.setIsReturn(in.is_return);
  out.setTransport(static_cast<schema::TransportKind>(in.transport));
  out.setSpin(static_cast<schema::SpinPolicy>(in.spin));
  out.setChecksum(static_cast<schema::ChecksumPolicy>(in.checksum));
  out.setCredits(in.credits);
  out.setSlotPayloadBytes(in.slot_payload_bytes);
  out.setSlotMetadataBytes(in.slot_metadata_bytes);
}

void read(schema::EdgePlan::Reader in, EdgePlan& out) {
  out.id = in.getId();
  out.from = in.getFrom();
  out.to = in.getTo();
  out.is_return = in.getIsReturn();
  out.transport = checked(in.getTransport(), TransportKind::loopback);
  out.spin = checked(in.getSpin(), SpinPolicy::never);
  out.checksum = checked(in.getChecksum(), ChecksumPolicy::off);
  out.credits = in.getCredits();
  out.slot_payload_bytes = in.getSlotPayloadBytes();
  out.slot_metadata_bytes = in.getSlotMetadataBytes();
}

void write(schema::LoadParams::Builder out, const LoadParams& in) {
  write(out.initPlan(), in.plan);
  out.setStage(in.stage);
  out.setIsa(in.isa.c_str());
  out.setListenAddress(in.listen_address.c_str());
  out.setSpinBetweenOps(in.spin_between_ops);
  out.setCacheFolder(in.cache_folder.c_str());
}

void read(schema::LoadParams::Reader in, LoadParams& out) {
  read(in.getPlan(), out.plan);
  out.stage = in.getStage();
  out.isa = text(in.getIsa());
  out.listen_address = text(in.getListenAddress());
  out.spin_between_ops = in.getSpinBetweenOps();
  out.cache_folder = text(in.getCacheFolder());
}

void write(schema::LinkTarget::Builder out, const LinkTarget& in) {
  out.setEdge(in.edge);
  out.setAddress(in.address.c_str());
  out.setPort(in.port);
  out.setSecret(in.secret);
  out.setIncarnation(in.incarnation);
}

void read(schema::LinkTarget::Reader in, LinkTarget& out) {
  out.edge = in.getEdge();
  out.address = text(in.getAddress());
  out.port = in.getPort();
  out.secret = in.getSecret();
  out.incarnation = in.getIncarnation();
}

void write(schema::LinkAccept::Builder out, const LinkAccept& in) {
  out.setEdge(in.edge);
  out.setSecret(in.secret);
  out.setIncarnation(in.incarnation);
}

void read(schema::LinkAccept::Reader in, LinkAccept& out) {
  out.edge = in.getEdge();
  out.secret = in.getSecret();
  out.incarnation = in.getIncarnation();
}

void write(schema::SamplingParams::Builder out, const SamplingParams& in) {
  out.setTemperature(in.temperature);
  out.setTopP(in.top_p);
  out.setMinP(in.min_p);
  out.setTopK(in.top_k);
  out.setRepetitionPenalty(in.repetition_penalty);
  out.setPresencePenalty(in.presence_penalty);
  out.setFrequencyPenalty(in.frequency_penalty);
  write_pairs(out.initLogitBias(num(in.logit_bias)), in.logit_bias);
  out.setSeed(in.seed);
  out.setMaxNewTokens(in.max_new_tokens);
  out.setIgnoreEos(in.ignore_eos);
  write_bytes(out.initStop(num(in.stop)), in.stop);
  write_ints(out.initStopTokenIds(num(in.stop_token_ids)), in.stop_token_ids);
  out.setNumTopLogprobs(in.num_top_logprobs);
}

void read(schema::SamplingParams::Reader in, SamplingParams& out) {
  out.temperature = in.getTemperature();
  out.top_p = in.getTopP();
  out.min_p = in.getMinP();
  out.top_k = in.getTopK();
  out.repetition_penalty = in.getRepetitionPenalty();
  out.presence_penalty = in.getPresencePenalty();
  out.frequency_penalty = in.getFrequencyPenalty();
  read_pairs(in.getLogitBias(), out.logit_bias);
  out.seed = in.getSeed();
  out.max_new_tokens = in.getMaxNewTokens();
  out.ignore_eos = in.getIgnoreEos();
  read_bytes(in.getStop(), out.stop);
  read_ints(in.getStopTokenIds(), out.stop_token_ids);
  out.num_top_logprobs = in.getNumTopLogprobs();
}

void write(schema::ScoreParams::Builder out, const ScoreParams& in) {
  out.setFirstPosition(in.first_position);
  out.setFullPath(in.full_path.c_str());
}

void read(schema::ScoreParams::Reader in, ScoreParams& out) {
  out.first_position = in.getFirstPosition();
  out.full_path = text(in.getFullPath());
}

void write(schema::GenerateRequest::Builder out, const GenerateRequest& in) {
  out.setRequestId(in.request_id);
  out.setSequenceIndex(in.sequence_index);
  write_ints(out.initPrompt(num(in.prompt)), in.prompt);
  write(out.initSampling(), in.sampling);
  write(out.initScore(), in.score);
}

void read(schema::GenerateRequest::Reader in, GenerateRequest& out) {
  out.request_id = in.getRequestId();
  out.sequence_index = in.getSequenceIndex();
  read_ints(in.getPrompt(), out.prompt);
  read(in.getSampling(), out.sampling);
  read(in.getScore(), out.score);
}

void write(schema::TokenResult::Builder out, const TokenResult& in) {
  out.setSequenceId(in.sequence_id);
  out.setPosition(in.position);
  out.setToken(in.token);
  out.setLogprob(in.logprob);
  write_pairs(out.initTopLogprobs(num(in.top_logprobs)), in.top_logprobs);
  out.setFinish(static_cast<schema::FinishReason>(in.finish));
  out.setTextBytes(in.text_bytes);
}

void read(schema::TokenResult::Reader in, TokenResult& out) {
  out.sequence_id = in.getSequenceId();
  out.position = in.getPosition();
  out.token = in.getToken();
  out.logprob = in.getLogprob();
  read_pairs(in.getTopLogprobs(), out.top_logprobs);
  out.finish = checked(in.getFinish(), FinishReason::failed);
  out.text_bytes = in.getTextBytes();
}

void write(schema::ScoreResult::Builder out, const ScoreResult& in) {
  out.setSequenceId(in.sequence_id);
  out.setPosition(in.position);
  out.setLogprob(in.logprob);
  out.setArgmax(in.argmax);
}

void read(schema::ScoreResult::Reader in, ScoreResult& out) {
  out.sequence_id = in.getSequenceId();
  out.position = in.getPosition();
  out.logprob = in.getLogprob();
  out.argmax = in.getArgmax();
}

void write(schema::StageReport::Builder out, const StageReport& in) {
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
  out.setBusyNs(in.busy_ns);
  out.setTransferNs(in.transfer_ns);
  out.setBubbleInputNs(in.bubble_input_ns);
  out.setBubbleCreditNs(in.bubble_credit_ns);
  out.setBubbleOtherNs(in.bubble_other_ns);
  out.setWallNs(in.wall_ns);
}

void read(schema::StageReport::Reader in, StageReport& out) {
  out.stage = in.getStage();
  out.layer_begin = in.getLayerBegin();
  out.layer_end = in.getLayerEnd();
  out.pid = in.getPid();
  read_ints(in.getCores(), out.cores);
  out.weight_bytes_read = in.getWeightBytesRead();
  out.weight_bytes_held = in.getWeightBytesHeld();
  out.kv_bytes = in.getKvBytes();
  out.steps = in.getSteps();
  out.tokens = in.getTokens();
  out.busy_ns = in.getBusyNs();
  out.transfer_ns = in.getTransferNs();
  out.bubble_input_ns = in.getBubbleInputNs();
  out.bubble_credit_ns = in.getBubbleCreditNs();
  out.bubble_other_ns = in.getBubbleOtherNs();
  out.wall_ns = in.getWallNs();
}

void write(schema::LinkReport::Builder out, const LinkReport& in) {
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

void write(schema::RankStats::Builder out, const RankStats& in) {
  write(out.initStage(), in.stage);
  write_list(out.initLinks(num(in.links)), in.links);
}

void read(schema::RankStats::Reader in, RankStats& out) {
  read(in.getStage(), out.stage);
  read_list(in.getLinks(), out.links);
}

}  // namespace chainpump::transport::rpc
