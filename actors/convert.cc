#include "actors/convert.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "base/kv_layout.h"

namespace chainpump::actors {
namespace rpc = transport::rpc;
namespace {

int64_t blocks_for(int64_t positions) { return (positions + kKvBlockTokens - 1) / kKvBlockTokens; }

// The enums of both sides list the same names in the same order.
template <typename To, typename From>
To same(From value) {
  return static_cast<To>(static_cast<std::underlying_type_t<From>>(value));
}

/// Both sides' sampling parameters have the same fields of the same types.
template <typename To, typename From>
To same_sampling(const From& p) {
  return {.temperature = p.temperature,
          .top_p = p.top_p,
          .min_p = p.min_p,
          .top_k = p.top_k,
          .repetition_penalty = p.repetition_penalty,
          .presence_penalty = p.presence_penalty,
          .frequency_penalty = p.frequency_penalty,
          .logit_bias = p.logit_bias,
          .seed = p.seed,
          .max_new_tokens = p.max_new_tokens,
          .ignore_eos = p.ignore_eos,
          .stop = p.stop,
          .stop_token_ids = p.stop_token_ids,
          .num_top_logprobs = p.num_top_logprobs};
}

static_assert(static_cast<int>(rpc::TransportKind::loopback) ==
              static_cast<int>(graph::TransportKind::loopback));
static_assert(static_cast<int>(rpc::SpinPolicy::never) ==
              static_cast<int>(graph::SpinPolicy::never));
static_assert(static_cast<int>(rpc::ChecksumPolicy::off) ==
              static_cast<int>(graph::ChecksumPolicy::off));
static_assert(static_cast<int>(rpc::FinishReason::failed) ==
              static_cast<int>(graph::FinishReason::failed));

rpc::StagePlan to_wire(const graph::StagePlan& stage) {
  std::vector<rpc::DevicePlan> devices;
  for (const graph::DevicePlan& device : stage.devices)
    devices.push_back({.kind = device.kind,
                       .cores = {device.cores.begin(), device.cores.end()},
                       .node = device.node});
  return {.index = stage.index.value,
          .name = stage.name,
          .layer_begin = stage.layer_begin,
          .layer_end = stage.layer_end,
          .has_embedding = stage.has_embedding,
          .has_head = stage.has_head,
          .devices = std::move(devices),
          .standbys = stage.standbys,
          .nodes = stage.nodes,
          .num_threads = stage.num_threads,
          .weight_bytes = stage.weight_bytes,
          .kv_bytes = stage.kv_bytes,
          .slot_bytes = stage.slot_bytes,
          .predicted_decode_s = stage.predicted_decode_s,
          .predicted_prefill_s = stage.predicted_prefill_s};
}

graph::StagePlan from_wire(const rpc::StagePlan& stage) {
  graph::StagePlan out;
  out.index = StageIndex(stage.index);
  out.name = stage.name;
  out.layer_begin = stage.layer_begin;
  out.layer_end = stage.layer_end;
  out.has_embedding = stage.has_embedding;
  out.has_head = stage.has_head;
  out.devices.clear();
  for (const rpc::DevicePlan& device : stage.devices)
    out.devices.push_back({.kind = device.kind,
                           .cores = {device.cores.begin(), device.cores.end()},
                           .node = device.node});
  out.standbys = stage.standbys;
  out.nodes = stage.nodes;
  out.num_threads = stage.num_threads;
  out.weight_bytes = stage.weight_bytes;
  out.kv_bytes = stage.kv_bytes;
  out.slot_bytes = stage.slot_bytes;
  out.predicted_decode_s = stage.predicted_decode_s;
  out.predicted_prefill_s = stage.predicted_prefill_s;
  return out;
}

rpc::EdgePlan to_wire(const graph::EdgePlan& edge) {
  return {.id = edge.id.value,
          .from = edge.from.value,
          .to = edge.to.value,
          .is_return = edge.is_return,
          .transport = same<rpc::TransportKind>(edge.transport),
          .spin = same<rpc::SpinPolicy>(edge.spin),
          .checksum = same<rpc::ChecksumPolicy>(edge.checksum),
          .credits = edge.credits,
          .slot_payload_bytes = edge.slot_payload_bytes,
          .slot_metadata_bytes = edge.slot_metadata_bytes};
}

graph::EdgePlan from_wire(const rpc::EdgePlan& edge) {
  return {.id = EdgeId(edge.id),
          .from = StageIndex(edge.from),
          .to = StageIndex(edge.to),
          .is_return = edge.is_return,
          .transport = same<graph::TransportKind>(edge.transport),
          .spin = same<graph::SpinPolicy>(edge.spin),
          .checksum = same<graph::ChecksumPolicy>(edge.checksum),
          .credits = edge.credits,
          .slot_payload_bytes = edge.slot_payload_bytes,
          .slot_metadata_bytes = edge.slot_metadata_bytes};
}

// More than any graph file may ask for, and far fewer than the sequencer has names for.
constexpr int32_t kSequencesMax = 1 << 17;
constexpr size_t kLanesMax = 64;  // as many as the graph file may ask for
constexpr int32_t kStandbysMax = 64;

/// The chain must be one: stage i feeds stage i + 1, and the last edge returns. The ranks of every
/// stage serve equally many lanes.
Status check_chain(const graph::Plan& plan) {
  const size_t num_stages = plan.stages.size();
  if (num_stages == 0 || plan.edges.size() != num_stages)
    return make_error(ErrorCode::invalid_argument, "plan: {} stages with {} edges", num_stages,
                      plan.edges.size());
  for (size_t i = 0; i < num_stages; ++i) {
    const graph::StagePlan& stage = plan.stages[i];
    const graph::EdgePlan& edge = plan.edges[i];
    const auto index = static_cast<int32_t>(i);
    const bool is_last = i + 1 == num_stages;
    if (stage.index.value != index || stage.layer_begin < 0 ||
        stage.layer_end < stage.layer_begin || stage.has_embedding != (i == 0) ||
        stage.has_head != is_last || stage.devices.empty() || stage.devices.size() > kLanesMax ||
        static_cast<size_t>(num_lanes(plan)) % stage.devices.size() != 0 || stage.standbys < 0 ||
        stage.standbys > kStandbysMax || (stage.standbys > 0 && stage.devices.size() > 1))
      return make_error(ErrorCode::invalid_argument, "plan: stage {} makes no sense", i);
    if (edge.from.value != index || edge.to.value != (is_last ? 0 : index + 1) ||
        edge.is_return != is_last || edge.credits < 1 || edge.slot_payload_bytes < 0 ||
        edge.slot_metadata_bytes < 1)
      return make_error(ErrorCode::invalid_argument, "plan: edge {} makes no sense", i);
  }
  if (int64_t{plan.kv.num_blocks} * num_lanes(plan) > std::numeric_limits<int32_t>::max())
    return make_error(ErrorCode::invalid_argument, "plan: too many KV blocks");
  return ok_status();
}

}  // namespace

rpc::ModelIdentity to_wire(const graph::ModelIdentity& model) {
  return {.bytes = model.bytes,
          .fingerprint = model.fingerprint,
          .content_low = model.content_low,
          .content_high = model.content_high};
}

graph::ModelIdentity from_wire(const rpc::ModelIdentity& model) {
  return {.bytes = model.bytes,
          .fingerprint = model.fingerprint,
          .content_low = model.content_low,
          .content_high = model.content_high};
}

rpc::Plan to_wire(const graph::Plan& plan) {
  rpc::Plan out{.epoch = plan.epoch.value,
                .model_path = plan.model_path,
                .context_tokens = plan.context_tokens,
                .prefill_chunk_tokens = plan.prefill_chunk_tokens,
                .max_microbatch_tokens = plan.max_microbatch_tokens,
                .max_sequences = plan.max_sequences,
                .max_queued = plan.max_queued,
                .max_microbatches = plan.max_microbatches,
                .decode_delay_ns = plan.decode_delay_max.count(),
                .prefix_cache = plan.prefix_cache,
                .replay_log_bytes = plan.replay_log_bytes,
                .failover_restarts = plan.failover_restarts,
                .failover_window_ns = plan.failover_window.count(),
                .failover_evicts_slow = plan.failover_evicts_slow,
                .exact_activations = plan.exact_activations,
                .kv = {.type = std::string(to_string(plan.kv.type)),
                       .block_tokens = plan.kv.block_tokens,
                       .num_blocks = plan.kv.num_blocks},
                .stages = {},
                .edges = {}};
  for (const graph::StagePlan& stage : plan.stages) out.stages.push_back(to_wire(stage));
  for (const graph::EdgePlan& edge : plan.edges) out.edges.push_back(to_wire(edge));
  for (const graph::NodePlan& node : plan.nodes) out.nodes.push_back({node.name, node.num_cores});
  out.model = to_wire(plan.model);
  return out;
}

Result<graph::Plan> from_wire(const rpc::Plan& plan) {
  graph::Plan out;
  out.epoch = PlanEpoch(plan.epoch);
  out.model_path = plan.model_path;
  out.context_tokens = plan.context_tokens;
  out.prefill_chunk_tokens = plan.prefill_chunk_tokens;
  out.max_microbatch_tokens = plan.max_microbatch_tokens;
  out.max_sequences = plan.max_sequences;
  out.max_queued = plan.max_queued;
  out.decode_delay_max = Duration(plan.decode_delay_ns);
  out.prefix_cache = plan.prefix_cache;
  out.replay_log_bytes = plan.replay_log_bytes;
  out.failover_restarts = plan.failover_restarts;
  out.failover_window = Duration(plan.failover_window_ns);
  out.failover_evicts_slow = plan.failover_evicts_slow;
  out.max_microbatches = plan.max_microbatches;
  out.exact_activations = plan.exact_activations;
  const std::optional<DType> kv_type = dtype_from_name(plan.kv.type);
  if (!kv_type)
    return make_error(ErrorCode::invalid_argument, "plan: unknown KV type '{}'", plan.kv.type);
  out.kv = {
      .type = *kv_type, .block_tokens = plan.kv.block_tokens, .num_blocks = plan.kv.num_blocks};
  if (out.context_tokens < 1 || out.prefill_chunk_tokens < 0 ||
      out.max_microbatch_tokens < std::max(1, out.prefill_chunk_tokens) || out.max_sequences < 1 ||
      out.max_sequences > kSequencesMax || out.max_queued < 1 || out.max_queued > kSequencesMax ||
      out.decode_delay_max.count() < 0 || out.replay_log_bytes < 0 || out.failover_restarts < 0 ||
      out.failover_window.count() < 0 || out.max_microbatches < 1 || out.kv.block_tokens < 1 ||
      out.kv.num_blocks < 1)
    return make_error(ErrorCode::invalid_argument, "plan: its limits make no sense");
  for (const rpc::StagePlan& stage : plan.stages) out.stages.push_back(from_wire(stage));
  for (const rpc::EdgePlan& edge : plan.edges) out.edges.push_back(from_wire(edge));
  RETURN_IF_ERROR(check_chain(out));
  for (const rpc::NodePlan& node : plan.nodes) {
    if (node.num_cores < 1)
      return make_error(ErrorCode::invalid_argument, "plan: node '{}' has no cores", node.name);
    out.nodes.push_back({node.name, node.num_cores});
  }
  out.model = from_wire(plan.model);
  return out;
}

rpc::SamplingParams to_wire(const graph::SamplingParams& p) {
  return same_sampling<rpc::SamplingParams>(p);
}

graph::SamplingParams from_wire(const rpc::SamplingParams& p) {
  return same_sampling<graph::SamplingParams>(p);
}

rpc::TokenResult to_wire(const graph::TokenResult& r) {
  return {.position = r.position,
          .token = r.token,
          .logprob = r.logprob,
          .top_logprobs = r.top_logprobs,
          .finish = same<rpc::FinishReason>(r.finish),
          .text_bytes = r.text_bytes};
}

graph::TokenResult from_wire(const rpc::TokenResult& r) {
  return {.position = r.position,
          .token = r.token,
          .logprob = r.logprob,
          .top_logprobs = r.top_logprobs,
          .finish = same<graph::FinishReason>(r.finish),
          .text_bytes = r.text_bytes};
}

std::vector<rpc::LaneNews> to_wire(const std::vector<graph::LaneNews>& news) {
  std::vector<rpc::LaneNews> out;
  for (const graph::LaneNews& lane : news)
    out.push_back({.epoch = lane.epoch.value,
                   .serves = lane.serves,
                   .why = lane.why,
                   .away_for_ns = lane.away_for.count(),
                   .slow = lane.slow});
  return out;
}

std::vector<graph::LaneNews> from_wire(const std::vector<rpc::LaneNews>& news) {
  std::vector<graph::LaneNews> out;
  for (const rpc::LaneNews& lane : news)
    out.push_back({.epoch = PlanEpoch(lane.epoch),
                   .serves = lane.serves,
                   .why = lane.why,
                   .away_for = Duration(lane.away_for_ns),
                   .slow = lane.slow});
  return out;
}

rpc::StageHoldings to_wire(const graph::StageHoldings& holdings) {
  rpc::StageHoldings out{.stage = holdings.stage.value,
                         .sequences = {},
                         .held_positions = {},
                         .blocks = {},
                         .logged_positions = {},
                         .identities = {},
                         .indexes = {},
                         .tables = {}};
  for (const graph::StageHoldings::Held& held : holdings.held) {
    out.sequences.push_back(held.id.value);
    out.held_positions.push_back(held.num_positions);
    out.identities.push_back(held.identity);
    out.indexes.push_back(held.index);
    for (const KvBlockId block : held.table) out.tables.push_back(block.value);
  }
  for (const auto& [block, num_positions] : holdings.logged) {
    out.blocks.push_back(block.value);
    out.logged_positions.push_back(num_positions);
  }
  return out;
}

Result<graph::StageHoldings> from_wire(const rpc::StageHoldings& holdings,
                                       const graph::Plan& plan) {
  const auto negative = [](int32_t count) { return count < 0; };
  const auto& held = holdings.held_positions;
  const auto& logged = holdings.logged_positions;
  int64_t num_blocks = 0;
  for (const int32_t positions : held) num_blocks += blocks_for(positions);
  if (holdings.stage < 0 || static_cast<size_t>(holdings.stage) >= plan.stages.size() ||
      held.size() != holdings.sequences.size() || logged.size() != holdings.blocks.size() ||
      holdings.identities.size() != held.size() || holdings.indexes.size() != held.size() ||
      std::any_of(held.begin(), held.end(), negative) ||
      num_blocks != static_cast<int64_t>(holdings.tables.size()) ||
      std::any_of(logged.begin(), logged.end(), negative))
    return make_error(ErrorCode::invalid_argument, "what stage {} is said to hold makes no sense",
                      holdings.stage);
  graph::StageHoldings out{.stage = StageIndex(holdings.stage), .held = {}, .logged = {}};
  auto next = holdings.tables.begin();
  for (size_t i = 0; i < held.size(); ++i) {
    auto& of =
        out.held.emplace_back(graph::StageHoldings::Held{.id = SequenceId(holdings.sequences[i]),
                                                         .num_positions = held[i],
                                                         .identity = holdings.identities[i],
                                                         .index = holdings.indexes[i]});
    for (int64_t left = blocks_for(held[i]); left > 0; --left) of.table.emplace_back(*next++);
  }
  for (size_t i = 0; i < logged.size(); ++i)
    out.logged.push_back({KvBlockId(holdings.blocks[i]), logged[i]});
  return out;
}

rpc::ScoreResult to_wire(const graph::ScoreResult& r) {
  return {.position = r.position, .logprob = r.logprob, .argmax = r.argmax};
}

graph::ScoreResult from_wire(const rpc::ScoreResult& r) {
  return {.position = r.position, .logprob = r.logprob, .argmax = r.argmax};
}

}  // namespace chainpump::actors
