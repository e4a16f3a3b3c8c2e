// What control calls carry, as plain C++: a literal mirror of schemas/control.capnp, where the
// meaning of each field stands. Knows no graph types (transport knows neither graph nor actors);
// whoever calls converts. Plain data, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "transport/armed_fault.h"

namespace chainpump::transport::rpc {

/// Equals protocolVersion in schemas/control.capnp (asserted where both are visible).
inline constexpr uint32_t kProtocolVersion = 18;

struct HelloReply {
  uint32_t protocol_version = 0;
  std::string build;  // release and commit
  int32_t pid = 0;
};

struct LinkBeat {
  uint32_t edge = 0;
  uint32_t incarnation = 0;
  bool is_sender = false;
  uint64_t spoken = 0;
  uint64_t heard = 0;
  int64_t looked_ago_ns = 0;
};

struct StepTotals {
  uint64_t steps = 0;
  uint64_t behind = 0;
  uint64_t slow = 0;
  int64_t measured_ns = 0;
  int64_t expected_ns = 0;
};

struct BeatReply {
  uint64_t count = 0;
  std::vector<LinkBeat> links = {};
  StepTotals steps = {};
};

enum class TransportKind : uint8_t { automatic, tcp, shared_memory, loopback };
enum class SpinPolicy : uint8_t { automatic, always, never };
enum class ChecksumPolicy : uint8_t { automatic, on, off };

struct KvPlan {
  std::string type;  // "f32", "bf16", "f16"
  int32_t block_tokens = 0;
  int32_t num_blocks = 0;
};

struct DevicePlan {
  std::string kind;
  std::vector<int32_t> cores;
  std::string node;
};

struct StagePlan {
  int32_t index = 0;
  std::string name;
  int32_t layer_begin = 0;
  int32_t layer_end = 0;
  bool has_embedding = false;
  bool has_head = false;
  std::vector<DevicePlan> devices;
  int32_t standbys = 0;
  std::vector<std::string> nodes;
  int32_t num_threads = 1;
  int64_t weight_bytes = 0;
  int64_t kv_bytes = 0;
  int64_t slot_bytes = 0;
  double predicted_decode_s = 0;
  double predicted_prefill_s = 0;
};

struct EdgePlan {
  uint32_t id = 0;
  int32_t from = 0;
  int32_t to = 0;
  bool is_return = false;
  TransportKind transport = TransportKind::automatic;
  SpinPolicy spin = SpinPolicy::automatic;
  ChecksumPolicy checksum = ChecksumPolicy::automatic;
  int32_t credits = 0;
  int64_t slot_payload_bytes = 0;
  int64_t slot_metadata_bytes = 0;
};

struct ModelIdentity {
  uint64_t bytes = 0;
  uint64_t fingerprint = 0;
  uint64_t content_low = 0;
  uint64_t content_high = 0;
  bool operator==(const ModelIdentity&) const = default;
};

struct WeightSource {
  std::string name;
  bool is_coordinator = false;
  std::string address;  // empty: there is none
};

struct NodePlan {
  std::string name;
  int32_t num_cores = 1;
};

struct Plan {
  uint32_t epoch = 1;
  std::string model_path;
  int32_t context_tokens = 0;
  int32_t prefill_chunk_tokens = 0;
  int32_t max_microbatch_tokens = 0;
  int32_t max_sequences = 0;
  int32_t max_queued = 0;
  int32_t max_microbatches = 0;
  int64_t decode_delay_ns = 0;
  bool prefix_cache = false;
  int64_t replay_log_bytes = 0;
  int32_t failover_restarts = 0;
  int64_t failover_window_ns = 0;
  bool failover_evicts_slow = false;
  bool exact_activations = false;
  KvPlan kv;
  std::vector<StagePlan> stages;
  std::vector<EdgePlan> edges;
  std::vector<NodePlan> nodes = {};
  ModelIdentity model = {};
};

struct LoadParams {
  Plan plan;
  uint32_t rank = 0;
  std::string isa;
  std::string listen_address;
  bool spin_between_ops = false;
  std::string cache_folder;
  uint64_t term = 0;
  std::vector<WeightSource> weights = {};
};

struct LaneState {
  uint8_t lane = 0;
  uint32_t epoch = 1;
  bool linked = false;
  bool at_work = false;
};

struct LoadReport {
  std::string numerics_id;
  int64_t weight_bytes_read = 0;
  int64_t weight_bytes_held = 0;
  int64_t kv_bytes = 0;
  std::string listen_address;
  uint16_t listen_port = 0;
  int32_t vocabulary_size = 0;
  int32_t hidden_size = 0;
  std::vector<LaneState> lanes;
};

struct AgentProcess {
  uint32_t rank = 0;
  uint32_t run = 0;
  bool runs = false;
  std::string socket;
};

struct LaneAddress {
  std::string socket;
  uint32_t epoch = 1;
  std::string node = {};
};

struct NodeInfo {
  std::string name;
  std::vector<std::string> labels;
  std::string agent;
  std::string data_address;
  std::vector<int32_t> cores;
  int64_t memory_bytes = 0;
  std::vector<double> read_bytes_per_s;
  double int8_ops_per_s = 0;
  double f32_ops_per_s = 0;
  double bf16_ops_per_s = 0;
  std::string weights = {};
};

struct LaneNews {
  uint32_t epoch = 1;
  bool serves = false;
  std::string why;
  int64_t away_for_ns = 0;
  std::string slow = {};
};

struct StoreSpec {
  std::string address;
  std::string prefix;
  std::string authority;
  std::string certificate;
  std::string key;
};

struct ServiceSpec {
  Plan plan;
  std::string isa;
  bool spin_between_ops = false;
  std::string cache_folder;
  std::string certificates;
  std::string node;
  StoreSpec store = {};
  std::string graph = {};
  std::string graph_text = {};
  uint32_t number = 0;
  WeightSource weights = {};
};

struct LinkTarget {
  uint32_t edge = 0;
  std::string address;
  uint16_t port = 0;
  uint64_t secret = 0;
  uint32_t incarnation = 1;
};

struct LinkAccept {
  uint32_t edge = 0;
  uint64_t secret = 0;
  uint32_t incarnation = 1;
};

struct ConnectParams {
  uint32_t epoch = 1;
  std::vector<LinkTarget> links;
  std::vector<LinkAccept> accept;
};

struct StageHoldings {
  int32_t stage = 0;
  std::vector<uint64_t> sequences;
  std::vector<int32_t> held_positions;
  std::vector<int32_t> blocks;
  std::vector<int32_t> logged_positions;
  uint16_t listen_port = 0;
  std::vector<uint64_t> identities;
  std::vector<uint32_t> indexes;
  std::vector<int32_t> tables;
};

struct SamplingParams {
  float temperature = 0.0f;
  float top_p = 1.0f;
  float min_p = 0.0f;
  int32_t top_k = 0;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  std::vector<std::pair<int32_t, float>> logit_bias;
  uint64_t seed = 0;
  int32_t max_new_tokens = 128;
  bool ignore_eos = false;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  int32_t num_top_logprobs = -1;
};

struct ScoreParams {
  int32_t first_position = -1;
  std::string full_path;
};

struct GenerateRequest {
  uint64_t request_id = 0;
  uint32_t sequence_index = 0;
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  ScoreParams score;
  int64_t timeout_ns = 0;
  int32_t num_sequences = 1;
  uint32_t tenant = 0;
  uint64_t cache_salt = 0;
  int32_t priority = 0;
  std::vector<int32_t> generated;
  bool readmitted = false;
  uint64_t identity = 0;
};

enum class FinishReason : uint8_t { none, stop, length, cancelled, failed };

struct TokenResult {
  uint64_t request_id = 0;
  uint32_t sequence_index = 0;
  int32_t position = 0;
  int32_t token = 0;
  float logprob = 0.0f;
  std::vector<std::pair<int32_t, float>> top_logprobs;
  FinishReason finish = FinishReason::none;
  int64_t text_bytes = -1;
};

struct ScoreResult {
  uint64_t request_id = 0;
  uint32_t sequence_index = 0;
  int32_t position = 0;
  float logprob = 0.0f;
  int32_t argmax = 0;
};

struct RequestEnd {
  uint64_t request_id = 0;
  uint32_t sequence_index = 0;
  Status how = ok_status();
};

struct LaneStats {
  uint64_t num_taken = 0;
  int32_t num_free_blocks = 0;
  int32_t queue_room = 0;
  int64_t waiting_tokens = 0;
  int32_t num_running = 0;
  double tokens_per_s = 0;
  uint32_t epoch = 0;
  int64_t crossed_ago_ns = -1;
};

struct LaneResults {
  std::vector<TokenResult> tokens;
  std::vector<ScoreResult> scores;
  std::vector<RequestEnd> ends;
  LaneStats stats = {};
  bool empty() const {
    return tokens.empty() && scores.empty() && ends.empty() && stats.epoch == 0;
  }
};

struct StageReport {
  std::vector<uint8_t> lanes;
  int32_t stage = 0;
  int32_t layer_begin = 0;
  int32_t layer_end = 0;
  int32_t pid = 0;
  std::vector<int32_t> cores;
  int64_t weight_bytes_read = 0;
  int64_t weight_bytes_held = 0;
  int64_t kv_bytes = 0;
  uint64_t steps = 0;
  uint64_t tokens = 0;
  uint64_t tokens_held = 0;
  uint64_t tokens_rebuilt = 0;
  uint64_t frames_refused = 0;
  uint64_t frames_stale = 0;
  int64_t busy_ns = 0;
  int64_t transfer_ns = 0;
  int64_t bubble_input_ns = 0;
  int64_t bubble_credit_ns = 0;
  int64_t bubble_other_ns = 0;
  int64_t wall_ns = 0;
  std::string node;
};

struct LinkReport {
  uint8_t lane = 0;
  uint32_t edge = 0;
  bool outgoing = false;
  std::string transport;
  uint64_t frames = 0;
  uint64_t payload_bytes = 0;
  uint64_t metadata_bytes = 0;
  uint64_t copied_bytes = 0;
  uint64_t refused_frames = 0;
  double latency_p50_us = 0;
  double latency_p99_us = 0;
  int64_t blocked_on_credit_ns = 0;
};

struct LaneReport {
  uint8_t lane = 0;
  int32_t num_running = 0;
  int32_t num_waiting = 0;
  int32_t num_kv_blocks = 0;
  int32_t num_free_kv_blocks = 0;
};

struct RankStats {
  StageReport stage;
  std::vector<LinkReport> links;
  std::vector<LaneReport> lanes;
};

}  // namespace chainpump::transport::rpc
