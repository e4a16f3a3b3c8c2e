#include "graph/planner.h"

#include <algorithm>
#include <limits>

#include "base/kv_layout.h"
#include "graph/core_assignment.h"
#include "graph/partition.h"
#include "graph/runnable.h"

namespace chainpump::graph {
namespace {

constexpr int32_t kDefaultContextMax = 8192;
constexpr int32_t kAutoChunkMax = 512;  // slots and buffers are made for it
// The default cache holds so many of the longest kind: many more shorter ones then run at once.
constexpr int32_t kLongestSequences = 8;
// Descriptors at their limits that one frame must hold; what does not fit goes with the next.
constexpr int32_t kDescribedAtOnce = 8;
constexpr double kPromptTokensPerGenerated = 4;  // a chat's usual mix, in a wide range
constexpr int64_t kRankOverheadBytes = int64_t{16} << 20;
constexpr int64_t kAutoReplayLogMax = int64_t{256} << 20;
constexpr int64_t kMetadataMax = int64_t{64} << 20;
constexpr int64_t kDescriptorMetadata = 96 << 10;  // biases, stop strings, ids at their limits
constexpr int64_t kSliceMetadata = 256;            // of one that is known, and its end
constexpr int64_t kResultMetadata = 512;           // a token with 20 log-probabilities

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
int64_t blocks_for(int64_t tokens) { return round_up(tokens, kKvBlockTokens) / kKvBlockTokens; }

class Planner {
 public:
  Planner(const Graph& graph, const ModelProfile& model, const std::vector<Node>& nodes)
      : graph_(graph), model_(model), nodes_(nodes) {
    for (const Stage& stage : graph.stages)
      num_lanes_ = std::max(num_lanes_, static_cast<size_t>(stage.replicas));
  }

  Result<PlanReport> make() {
    RETURN_IF_ERROR(check_model());
    Plan& plan = report_.plan;
    plan.model_path = graph_.model_path;
    plan.nodes = node_plans(nodes_);
    plan.exact_activations = graph_.exact_activations;
    plan.prefill_chunk_tokens = graph_.prefill_chunk;
    plan.max_sequences = graph_.max_sequences;
    plan.max_queued = graph_.max_queued;
    plan.decode_delay_max = std::chrono::milliseconds(graph_.decode_delay_ms);
    plan.prefix_cache = graph_.prefix_cache;
    plan.failover_restarts = graph_.failover_restarts;
    plan.failover_window = std::chrono::milliseconds(graph_.failover_window_ms);
    plan.failover_evicts_slow = graph_.failover_evicts_slow;
    plan.max_microbatch_tokens = chunk_max() + graph_.max_sequences;
    plan.max_microbatches =
        graph_.max_microbatches > 0 ? graph_.max_microbatches : static_cast<int32_t>(num_stages());
    RETURN_IF_ERROR(place());
    ASSIGN_OR_RETURN(shared_, assign_cores(graph_, nodes_, candidates_, plan.stages));
    RETURN_IF_ERROR(cut());
    weigh();
    RETURN_IF_ERROR(choose_context());
    return std::move(report_);
  }

 private:
  size_t num_stages() const { return graph_.stages.size(); }
  size_t num_replicas(size_t stage) const {
    return static_cast<size_t>(graph_.stages[stage].replicas);
  }
  /// Lanes that each rank of the stage serves.
  size_t lanes_per_rank(size_t stage) const { return num_lanes_ / num_replicas(stage); }
  /// Prompt tokens of the largest microbatch.
  int32_t chunk_max() const {
    return graph_.prefill_chunk > 0 ? graph_.prefill_chunk : kAutoChunkMax;
  }

  Status check_model() const {
    if (model_.num_layers < 1 || model_.hidden_size < 1 || model_.vocabulary_size < 1 ||
        model_.layers.size() != static_cast<size_t>(model_.num_layers))
      return make_error(ErrorCode::bad_file, "{}: the model has no layers to plan",
                        graph_.model_path);
    if (num_stages() > static_cast<size_t>(model_.num_layers))
      return make_error(ErrorCode::invalid_argument, "{} stages, but the model has {} layers",
                        num_stages(), model_.num_layers);
    return ok_status();
  }

  /// Where each rank has its home.
  Status place() {
    ASSIGN_OR_RETURN(candidates_, candidates(graph_, nodes_));
    for (size_t i = 0; i < num_stages(); ++i) {
      StagePlan& stage = report_.plan.stages.emplace_back();
      stage.index = StageIndex{static_cast<int32_t>(i)};
      stage.name = graph_.stages[i].name;
      stage.standbys = graph_.stages[i].standbys;
      stage.devices.resize(num_replicas(i));
      for (size_t replica = 0; replica < num_replicas(i); ++replica)
        stage.devices[replica].node = nodes_[home(i, replica)].name;
      for (const size_t node : candidates_[i])
        if (!nodes_[node].name.empty()) stage.nodes.push_back(nodes_[node].name);
    }
    return ok_status();
  }
  /// Of a replica, or of a standby, whose seats follow theirs.
  size_t home(size_t stage, size_t seat) const {
    return candidates_[stage][seat % candidates_[stage].size()];
  }
  /// The machine that a stage is cut for: its first rank's.
  const MachineProfile& machine_of(size_t stage) const { return nodes_[home(stage, 0)].machine; }
  double seconds(size_t stage, const WeightBytes& weights, int32_t threads, int32_t tokens) const {
    return weights_seconds(weights, machine_of(stage), threads, tokens, graph_.exact_activations);
  }

  /// Seconds of each part for one generated token and the prompt tokens that come with it: the
  /// stage with most of them sets the rate of the whole. Neither kind alone will do: decode reads
  /// every weight for few tokens, so a large head weighs much; prefill multiplies, and the head
  /// not at all. A rank that serves several lanes does it for each: of two stages, the one with
  /// twice the replicas should hold twice the layers.
  ChainCosts chain_costs() const {
    // Decode tokens of one microbatch when the running set is full.
    const int32_t batch =
        std::max(1, graph_.max_sequences / std::max(1, report_.plan.max_microbatches));
    const int32_t chunk = chunk_max();
    ChainCosts costs;
    for (size_t s = 0; s < num_stages(); ++s) {
      const int32_t threads = report_.plan.stages[s].num_threads;
      const auto lanes = static_cast<double>(lanes_per_rank(s));
      std::vector<double>& row = costs.layer_s.emplace_back();
      for (const WeightBytes& layer : model_.layers)
        row.push_back(lanes *
                      (seconds(s, layer, threads, batch) / batch +
                       kPromptTokensPerGenerated * seconds(s, layer, threads, chunk) / chunk));
      double fixed =
          s == 0 ? embedding_seconds(model_, machine_of(s), 1) * (1 + kPromptTokensPerGenerated)
                 : 0;
      if (s + 1 == num_stages()) fixed += seconds(s, model_.head, threads, batch) / batch;
      costs.fixed_s.push_back(lanes * fixed);
    }
    return costs;
  }

  Status cut() {
    Plan& plan = report_.plan;
    std::vector<int32_t> ends;
    if (graph_.stages[0].layers) {
      for (const Stage& stage : graph_.stages) ends.push_back(stage.layers->end);
      if (ends.back() != model_.num_layers)
        return make_error(ErrorCode::invalid_argument,
                          "the stages' last layer is {}, but the model's last is {}",
                          ends.back() - 1, model_.num_layers - 1);
    } else {
      ends = partition_chain(chain_costs());
    }
    for (size_t s = 0; s < num_stages(); ++s) {
      plan.stages[s].layer_begin = s == 0 ? 0 : ends[s - 1];
      plan.stages[s].layer_end = ends[s];
      plan.stages[s].has_embedding = s == 0;
      plan.stages[s].has_head = s + 1 == num_stages();
    }
    return ok_status();
  }

  void weigh() {
    const int32_t chunk =
        report_.plan.prefill_chunk_tokens > 0 ? chunk_max() : report_.plan.max_microbatch_tokens;
    for (size_t s = 0; s < num_stages(); ++s) {
      StagePlan& stage = report_.plan.stages[s];
      const auto add = [&](const WeightBytes& weights, int32_t prefill_tokens) {
        stage.weight_bytes += weights.total;
        stage.predicted_decode_s += seconds(s, weights, stage.num_threads, 1);
        stage.predicted_prefill_s += seconds(s, weights, stage.num_threads, prefill_tokens);
      };
      for (int32_t i = stage.layer_begin; i < stage.layer_end; ++i)
        add(model_.layers[static_cast<size_t>(i)], chunk);
      if (stage.has_head) add(model_.head, 1);  // only a prompt's last token is sampled
      if (stage.has_embedding) {
        stage.predicted_decode_s += embedding_seconds(model_, machine_of(s), 1);
        stage.predicted_prefill_s += embedding_seconds(model_, machine_of(s), chunk);
        // A tied table stands in the head too: one rank maps it once.
        if (!(stage.has_head && model_.tied_head)) stage.weight_bytes += model_.embedding.total;
      }
    }
  }

  int64_t block_bytes() const {
    return kv_block_bytes(graph_.kv_type, model_.num_kv_heads, model_.head_dim);
  }
  /// So many for every lane on every stage, and on its standbys: of what is on one node, or of all.
  int64_t blocks_bytes(int64_t blocks, std::optional<size_t> node = std::nullopt) const {
    int64_t layers = 0;
    for (size_t i = 0; i < num_stages(); ++i) {
      const StagePlan& stage = report_.plan.stages[i];
      const int64_t own = stage.layer_end - stage.layer_begin;
      for (size_t seat = 0; seat < num_seats(i); ++seat)
        if (!node || home(i, seat) == *node)
          layers +=
              own * static_cast<int64_t>(seat < num_replicas(i) ? lanes_per_rank(i) : num_lanes_);
    }
    return blocks * block_bytes() * layers;
  }
  /// Ranks and standbys.
  size_t num_seats(size_t stage) const {
    return num_replicas(stage) + static_cast<size_t>(graph_.stages[stage].standbys);
  }
  int64_t available(size_t node) const {
    const int64_t there = nodes_[node].machine.memory_bytes;
    if (graph_.memory_bytes == 0) return there;
    return nodes_.size() == 1 ? graph_.memory_bytes : std::min(graph_.memory_bytes, there);
  }

  /// Edges and slots depend on the context through the metadata.
  void make_edges() {
    Plan& plan = report_.plan;
    plan.edges.clear();
    for (StagePlan& stage : plan.stages) stage.slot_bytes = 0;
    const size_t n = num_stages();
    const int64_t num_described = std::min(plan.max_sequences, kDescribedAtOnce);
    const int64_t of_described =
        num_described * (kDescriptorMetadata + int64_t{8} * plan.context_tokens);
    for (size_t i = 0; i < n; ++i) {
      EdgePlan& edge = plan.edges.emplace_back();
      edge.id = EdgeId{static_cast<uint32_t>(i)};
      edge.from = StageIndex{static_cast<int32_t>(i)};
      edge.is_return = i + 1 == n;
      edge.to = StageIndex{edge.is_return ? 0 : static_cast<int32_t>(i) + 1};
      edge.transport = n == 1                                         ? TransportKind::loopback
                       : graph_.transport == TransportKind::automatic ? TransportKind::tcp
                                                                      : graph_.transport;
      edge.spin = shared_ ? SpinPolicy::never : graph_.spin;
      edge.checksum = graph_.checksum;
      edge.credits =
          edge.is_return ? std::max(graph_.credits, plan.max_microbatches) : graph_.credits;
      const int64_t payload = int64_t{plan.max_microbatch_tokens} * model_.hidden_size * 4;
      const int64_t forward = 4096 + kSliceMetadata * plan.max_sequences + of_described +
                              int64_t{4} * plan.kv.num_blocks + 8 * plan.max_microbatch_tokens;
      const int64_t back =
          4096 + kResultMetadata * plan.max_sequences + int64_t{32} * plan.max_microbatch_tokens;
      edge.slot_payload_bytes = edge.is_return ? 64 : round_up(payload, 64);
      edge.slot_metadata_bytes =
          std::min(kMetadataMax, round_up(edge.is_return ? back : forward, 4096));
      const int64_t slots = edge.credits * (edge.slot_payload_bytes + edge.slot_metadata_bytes);
      for (const size_t end : {i, static_cast<size_t>(edge.to.value)})
        plan.stages[end].slot_bytes += slots * static_cast<int64_t>(lanes_per_rank(end));
    }
  }

  /// What a rank in so many lanes sends on for all positions that it has blocks for.
  int64_t activation_bytes(size_t lanes) const {
    return int64_t{report_.plan.kv.num_blocks} * kKvBlockTokens * model_.hidden_size * 4 *
           static_cast<int64_t>(lanes);
  }
  /// The bound for each rank.
  int64_t replay_log_bytes() const {
    const bool is_used = graph_.failover_restarts > 0 && num_stages() > 1;
    const int64_t most = graph_.replay_log_bytes.value_or(is_used ? kAutoReplayLogMax : 0);
    return std::min(most, activation_bytes(static_cast<size_t>(lanes_per_rank_max(report_.plan))));
  }

  /// The last stage logs nothing, and a standby has neither slots nor a log until it takes a place.
  int64_t bytes_beside_kv(size_t node) const {
    int64_t bytes = 0;
    for (size_t i = 0; i < num_stages(); ++i) {
      const StagePlan& stage = report_.plan.stages[i];
      const int64_t sent = stage.has_head ? 0 : activation_bytes(lanes_per_rank(i));
      const int64_t log = std::min(report_.plan.replay_log_bytes, sent);
      for (size_t seat = 0; seat < num_seats(i); ++seat)
        if (home(i, seat) == node)
          bytes += stage.weight_bytes + kRankOverheadBytes +
                   (seat < num_replicas(i) ? stage.slot_bytes + log : 0);
    }
    return bytes;
  }

  /// Blocks for `context` tokens a sequence, as far as there is room on every node.
  void size_kv(int32_t context, int64_t most_blocks) {
    Plan& plan = report_.plan;
    plan.context_tokens = context;
    plan.kv = {graph_.kv_type, kKvBlockTokens, 0};
    int64_t blocks = graph_.kv_blocks;
    if (blocks == 0) {
      const int32_t longest = graph_.kv_budget_bytes > 0
                                  ? plan.max_sequences
                                  : std::min(plan.max_sequences, kLongestSequences);
      const int64_t wanted = int64_t{longest} * blocks_for(context);
      blocks = std::min({wanted, most_blocks, int64_t{1} << 24});
    }
    plan.kv.num_blocks = static_cast<int32_t>(blocks);
    for (StagePlan& stage : plan.stages)
      stage.kv_bytes = blocks * block_bytes() * (stage.layer_end - stage.layer_begin) *
                       static_cast<int64_t>(num_lanes_ / stage.devices.size());
    plan.replay_log_bytes = replay_log_bytes();
    make_edges();
  }

  /// Needed bytes for `context`, of the node that has the least left; the verdict's question.
  bool try_context(int32_t context, int64_t most_blocks) {
    size_kv(context, most_blocks);
    Verdict& verdict = report_.verdict;
    const int64_t blocks = report_.plan.kv.num_blocks;
    const bool enough_blocks = blocks >= blocks_for(context);
    // If there are too few: what it would take for one sequence.
    const int64_t counted = enough_blocks ? blocks : blocks_for(context);
    verdict.fits = enough_blocks;
    for (size_t node = 0; node < nodes_.size(); ++node) {
      const int64_t needed = bytes_beside_kv(node) + blocks_bytes(counted, node);
      const bool is_tightest =
          node == 0 || available(node) - needed < verdict.available_bytes - verdict.needed_bytes;
      if (is_tightest) {
        verdict.node = nodes_[node].name;
        verdict.available_bytes = available(node);
        verdict.needed_bytes = needed;
      }
      verdict.fits &= needed <= available(node);
    }
    return verdict.fits;
  }

  Status choose_context() {
    if (blocks_bytes(1) <= 0)
      return make_error(ErrorCode::bad_file, "{}: the model has no KV heads", graph_.model_path);
    const int32_t trained =
        model_.context_tokens > 0 ? model_.context_tokens : std::numeric_limits<int32_t>::max();
    if (graph_.context_tokens > trained)
      return make_error(ErrorCode::invalid_argument,
                        "a context of {} tokens, but the model was made for {}",
                        graph_.context_tokens, trained);
    const int64_t budget = most_blocks();
    // The largest that fits, by bisection: needs grow with the context.
    int32_t low = 0;
    int32_t high = std::min(trained, 1 << 24);
    while (low < high) {
      const int32_t middle = low + (high - low + 1) / 2;
      if (try_context(middle, budget))
        low = middle;
      else
        high = middle - 1;
    }
    const int32_t asked =
        graph_.context_tokens > 0 ? graph_.context_tokens : std::min(trained, kDefaultContextMax);
    const bool may_shrink = graph_.context_tokens == 0 && low > 0;
    try_context(may_shrink ? std::min(asked, low) : asked, budget);
    report_.verdict.largest_context_tokens = low;
    return ok_status();
  }

  /// For the KV: the budget, else on each node a fourth of its memory, and no more than what
  /// weights, overhead, and slots at their largest for the default context leave there.
  int64_t most_blocks() {
    if (graph_.kv_budget_bytes > 0) return graph_.kv_budget_bytes / blocks_bytes(1);
    const int32_t context = graph_.context_tokens > 0 ? graph_.context_tokens : kDefaultContextMax;
    size_kv(context, std::numeric_limits<int64_t>::max());
    int64_t most = std::numeric_limits<int64_t>::max();
    for (size_t node = 0; node < nodes_.size(); ++node) {
      const int64_t each = blocks_bytes(1, node);
      const int64_t room = std::max<int64_t>(0, available(node) - bytes_beside_kv(node));
      if (each > 0) most = std::min(most, std::min(available(node) / 4, room) / each);
    }
    return most;
  }

  const Graph& graph_;
  const ModelProfile& model_;
  const std::vector<Node>& nodes_;
  std::vector<std::vector<size_t>> candidates_;  // by stage, indices of nodes
  PlanReport report_;
  size_t num_lanes_ = 1;
  bool shared_ = false;  // threads outnumber cores
};

}  // namespace

Result<PlanReport> make_plan_report(const Graph& graph, const ModelProfile& model,
                                    const std::vector<Node>& nodes,
                                    const PlanOverrides& overrides) {
  ASSIGN_OR_RETURN(const Graph effective, with_overrides(graph, overrides));
  RETURN_IF_ERROR(check_runnable(effective));
  for (const Stage& stage : effective.stages)
    if (!stage.nodes.empty() && nodes.front().name.empty())
      return make_error(ErrorCode::unimplemented,
                        "stage '{}' ({}:{}): `nodes` are those that have joined a `chainpump serve "
                        "--listen`; here is one machine",
                        stage.name, stage.at.line, stage.at.column);
  return Planner(effective, model, nodes).make();
}

Result<Plan> make_plan(const Graph& graph, const ModelProfile& model,
                       const std::vector<Node>& nodes, const PlanOverrides& overrides) {
  ASSIGN_OR_RETURN(PlanReport report, make_plan_report(graph, model, nodes, overrides));
  const Verdict& verdict = report.verdict;
  if (verdict.fits) return std::move(report.plan);
  const bool is_budget = verdict.needed_bytes <= verdict.available_bytes;
  const int32_t largest = verdict.largest_context_tokens;
  return make_error(ErrorCode::no_room, "does not fit{}: {} bytes needed, {} there{}; {}",
                    verdict.node.empty() ? "" : " on node '" + verdict.node + "'",
                    verdict.needed_bytes, verdict.available_bytes,
                    is_budget ? " (the KV budget is too small for one sequence)" : "",
                    largest > 0 ? fmt::format("the largest context that does is {} tokens", largest)
                                : std::string("no context does"));
}

}  // namespace chainpump::graph
