#include "transport/rpc/convert.h"

#include "transport/rpc/fields.h"

namespace chainpump::transport::rpc {
void write(schema::LaneState::Builder out, const LaneState& in) {
  out.setLane(in.lane);
  out.setEpoch(in.epoch);
  out.setLinked(in.linked);
  out.setAtWork(in.at_work);
}

void read(schema::LaneState::Reader in, LaneState& out) {
  out.lane = in.getLane();
  out.epoch = in.getEpoch();
  out.linked = in.getLinked();
  out.at_work = in.getAtWork();
}

void write(schema::AgentProcess::Builder out, const AgentProcess& in) {
  out.setRank(in.rank);
  out.setRun(in.run);
  out.setRuns(in.runs);
  out.setSocket(text(in.socket));
}

void read(schema::AgentProcess::Reader in, AgentProcess& out) {
  out.rank = in.getRank();
  out.run = in.getRun();
  out.runs = in.getRuns();
  out.socket = text(in.getSocket());
}

void write(schema::LoadReport::Builder out, const LoadReport& in) {
  out.setNumericsId(in.numerics_id.c_str());
  out.setWeightBytesRead(in.weight_bytes_read);
  out.setWeightBytesHeld(in.weight_bytes_held);
  out.setKvBytes(in.kv_bytes);
  out.setListenAddress(in.listen_address.c_str());
  out.setListenPort(in.listen_port);
  out.setVocabularySize(in.vocabulary_size);
  out.setHiddenSize(in.hidden_size);
  write_list(out.initLanes(num(in.lanes)), in.lanes);
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
  read_list(in.getLanes(), out.lanes);
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

void write(schema::DevicePlan::Builder out, const DevicePlan& in) {
  out.setKind(in.kind.c_str());
  write_ints(out.initCores(num(in.cores)), in.cores);
  out.setNode(text(in.node));
}

void read(schema::DevicePlan::Reader in, DevicePlan& out) {
  out.kind = text(in.getKind());
  out.cores = read_ints(in.getCores());
  out.node = text(in.getNode());
}

void write(schema::StagePlan::Builder out, const StagePlan& in) {
  out.setIndex(in.index);
  out.setName(in.name.c_str());
  out.setLayerBegin(in.layer_begin);
  out.setLayerEnd(in.layer_end);
  out.setHasEmbedding(in.has_embedding);
  out.setHasHead(in.has_head);
  write_list(out.initDevices(num(in.devices)), in.devices);
  out.setStandbys(in.standbys);
  write_texts(out.initNodes(num(in.nodes)), in.nodes);
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
  read_list(in.getDevices(), out.devices);
  out.standbys = in.getStandbys();
  out.nodes = read_texts(in.getNodes());
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
  out.setRank(in.rank);
  out.setIsa(in.isa.c_str());
  out.setListenAddress(in.listen_address.c_str());
  out.setSpinBetweenOps(in.spin_between_ops);
  out.setCacheFolder(in.cache_folder.c_str());
  out.setTerm(in.term);
  write_list(out.initWeights(num(in.weights)), in.weights);
}

void read(schema::LoadParams::Reader in, LoadParams& out) {
  read(in.getPlan(), out.plan);
  out.rank = in.getRank();
  out.isa = text(in.getIsa());
  out.listen_address = text(in.getListenAddress());
  out.spin_between_ops = in.getSpinBetweenOps();
  out.cache_folder = text(in.getCacheFolder());
  out.term = in.getTerm();
  read_list(in.getWeights(), out.weights);
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

void write(schema::LaneAddress::Builder out, const LaneAddress& in) {
  out.setSocket(text(in.socket));
  out.setEpoch(in.epoch);
  out.setNode(text(in.node));
}

void read(schema::LaneAddress::Reader in, LaneAddress& out) {
  out.socket = text(in.getSocket());
  out.epoch = in.getEpoch();
  out.node = text(in.getNode());
}

void write(schema::LaneNews::Builder out, const LaneNews& in) {
  out.setEpoch(in.epoch);
  out.setServes(in.serves);
  out.setWhy(text(in.why));
  out.setAwayForNs(in.away_for_ns);
  out.setSlow(text(in.slow));
}

void read(schema::LaneNews::Reader in, LaneNews& out) {
  out.epoch = in.getEpoch();
  out.serves = in.getServes();
  out.why = text(in.getWhy());
  out.away_for_ns = in.getAwayForNs();
  out.slow = text(in.getSlow());
}

namespace {

template <typename List, typename T>
void write_all(List out, const std::vector<T>& in) {
  for (uint32_t i = 0; i < out.size(); ++i) out.set(i, in[i]);
}

template <typename List, typename T>
void read_all(List in, std::vector<T>& out) {
  for (const T value : in) out.push_back(value);
}

}  // namespace

void write(schema::StageHoldings::Builder out, const StageHoldings& in) {
  out.setStage(in.stage);
  write_all(out.initSequences(num(in.sequences)), in.sequences);
  write_ints(out.initHeldPositions(num(in.held_positions)), in.held_positions);
  write_ints(out.initBlocks(num(in.blocks)), in.blocks);
  write_ints(out.initLoggedPositions(num(in.logged_positions)), in.logged_positions);
  out.setListenPort(in.listen_port);
  write_all(out.initIdentities(num(in.identities)), in.identities);
  write_all(out.initIndexes(num(in.indexes)), in.indexes);
  write_ints(out.initTables(num(in.tables)), in.tables);
}

void read(schema::StageHoldings::Reader in, StageHoldings& out) {
  out.stage = in.getStage();
  read_all(in.getSequences(), out.sequences);
  out.held_positions = read_ints(in.getHeldPositions());
  out.blocks = read_ints(in.getBlocks());
  out.logged_positions = read_ints(in.getLoggedPositions());
  out.listen_port = in.getListenPort();
  read_all(in.getIdentities(), out.identities);
  read_all(in.getIndexes(), out.indexes);
  out.tables = read_ints(in.getTables());
}

void write(schema::SamplingParams::Builder out, const SamplingParams& in) {
  write_sampling(out, in);
  out.setSeed(in.seed);
}

void read(schema::SamplingParams::Reader in, SamplingParams& out) {
  out = read_sampling<SamplingParams>(in);
  out.seed = in.getSeed();
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
  out.setTimeoutNs(in.timeout_ns);
  out.setNumSequences(in.num_sequences);
  out.setTenant(in.tenant);
  out.setCacheSalt(in.cache_salt);
  out.setPriority(in.priority);
  write_ints(out.initGenerated(num(in.generated)), in.generated);
  out.setReadmitted(in.readmitted);
  out.setIdentity(in.identity);
}

void read(schema::GenerateRequest::Reader in, GenerateRequest& out) {
  out.request_id = in.getRequestId();
  out.sequence_index = in.getSequenceIndex();
  out.prompt = read_ints(in.getPrompt());
  read(in.getSampling(), out.sampling);
  read(in.getScore(), out.score);
  out.timeout_ns = in.getTimeoutNs();
  out.num_sequences = in.getNumSequences();
  out.tenant = in.getTenant();
  out.cache_salt = in.getCacheSalt();
  out.priority = in.getPriority();
  out.generated = read_ints(in.getGenerated());
  out.readmitted = in.getReadmitted();
  out.identity = in.getIdentity();
}

void write(schema::TokenResult::Builder out, const TokenResult& in) {
  out.setRequestId(in.request_id);
  out.setSequenceIndex(in.sequence_index);
  out.setPosition(in.position);
  out.setToken(in.token);
  out.setLogprob(in.logprob);
  write_pairs(out.initTopLogprobs(num(in.top_logprobs)), in.top_logprobs);
  out.setFinish(static_cast<schema::FinishReason>(in.finish));
  out.setTextBytes(in.text_bytes);
}

void read(schema::TokenResult::Reader in, TokenResult& out) {
  out.request_id = in.getRequestId();
  out.sequence_index = in.getSequenceIndex();
  out.position = in.getPosition();
  out.token = in.getToken();
  out.logprob = in.getLogprob();
  out.top_logprobs = read_pairs(in.getTopLogprobs());
  out.finish = checked(in.getFinish(), FinishReason::failed);
  out.text_bytes = in.getTextBytes();
}

void write(schema::ScoreResult::Builder out, const ScoreResult& in) {
  out.setRequestId(in.request_id);
  out.setSequenceIndex(in.sequence_index);
  out.setPosition(in.position);
  out.setLogprob(in.logprob);
  out.setArgmax(in.argmax);
}

void read(schema::ScoreResult::Reader in, ScoreResult& out) {
  out.request_id = in.getRequestId();
  out.sequence_index = in.getSequenceIndex();
  out.position = in.getPosition();
  out.logprob = in.getLogprob();
  out.argmax = in.getArgmax();
}

Error read_error(schema::ErrorCode code, std::string message) {
  if (code == schema::ErrorCode::NONE) return Error{ErrorCode::internal, std::move(message)};
  return Error{checked(code, ErrorCode::internal), std::move(message)};
}

void write(schema::RequestEnd::Builder out, const RequestEnd& in) {
  out.setRequestId(in.request_id);
  out.setSequenceIndex(in.sequence_index);
  if (in.how.ok()) return;
  out.setCode(static_cast<schema::ErrorCode>(in.how.error().code));
  out.setMessage(in.how.error().message.c_str());
}

void read(schema::RequestEnd::Reader in, RequestEnd& out) {
  out.request_id = in.getRequestId();
  out.sequence_index = in.getSequenceIndex();
  if (in.getCode() == schema::ErrorCode::NONE) return;
  out.how = read_error(in.getCode(), in.getMessage());
}

void write(schema::Fault::Builder out, const FaultOrder& in) {
  out.setKind(static_cast<schema::FaultKind>(in.kind));
  out.setPoint(static_cast<schema::FaultPoint>(in.point));
  out.setCount(in.count);
  out.setFactor(in.factor);
  out.setLastsNs(in.lasts.count());
  out.setOfInput(in.of_input);
  out.setOfOutput(in.of_output);
  out.setOfHeader(in.of_header);
}

void read(schema::Fault::Reader in, FaultOrder& out) {
  out.kind = checked(in.getKind(), FaultOrder::Kind::damage);
  out.point = checked(in.getPoint(), FaultPoint::filling);
  out.count = in.getCount();
  out.factor = in.getFactor();
  out.lasts = Duration(in.getLastsNs());
  out.of_input = in.getOfInput();
  out.of_output = in.getOfOutput();
  out.of_header = in.getOfHeader();
}

}  // namespace chainpump::transport::rpc
