#include "cli/pipeline_case.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>

#include "actors/runtime.h"
#include "base/kv_layout.h"
#include "graph/plan.h"

namespace chainpump::cli {
namespace {

constexpr Duration kStartMax = std::chrono::seconds(30);
constexpr Duration kRunMax = std::chrono::seconds(120);
constexpr int64_t kSequenceBytes = 1024;  // of a descriptor without its tokens, and of a result

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

graph::EdgePlan edge_plan(const PipelineCase& c, int32_t index, int32_t context) {
  const auto num_stages = static_cast<int32_t>(c.stages.size());
  graph::EdgePlan edge;
  edge.id = EdgeId(static_cast<uint32_t>(index));
  edge.from = StageIndex(index);
  edge.is_return = index + 1 == num_stages;
  edge.to = StageIndex(edge.is_return ? 0 : index + 1);
  edge.transport =
      c.as_processes && num_stages > 1 ? graph::TransportKind::tcp : graph::TransportKind::loopback;
  // Sleeping leaves the cores free for stages that spin a moment before they wait.
  edge.spin = graph::SpinPolicy::automatic;
  edge.credits = std::max(4, edge.is_return ? c.max_microbatches : 0);
  edge.slot_payload_bytes =
      edge.is_return ? 64 : int64_t{c.max_microbatch_tokens} * models::kSleepHidden * 4;
  const int64_t described = edge.is_return ? 0 : int64_t{8} * context;
  edge.slot_metadata_bytes = round_up(65536 + c.num_requests * (kSequenceBytes + described), 4096);
  return edge;
}

graph::Plan pipeline_plan(const PipelineCase& c) {
  const auto num_stages = static_cast<int32_t>(c.stages.size());
  graph::Plan plan;
  plan.model_path = models::sleep_model_name(c.stages);
  plan.context_tokens =
      static_cast<int32_t>(round_up(c.prompt_tokens + c.new_tokens, kKvBlockTokens));
  plan.prefill_chunk_tokens = c.chunk_tokens;
  plan.max_microbatch_tokens = c.max_microbatch_tokens;
  plan.max_sequences = c.num_requests;
  plan.max_microbatches = c.max_microbatches;
  plan.kv = {.type = DType::f32,
             .block_tokens = kKvBlockTokens,
             .num_blocks = c.num_requests * plan.context_tokens / kKvBlockTokens};
  for (int32_t i = 0; i < num_stages; ++i) {
    const models::SleepLayer& layer = c.stages[static_cast<size_t>(i)];
    graph::StagePlan& stage = plan.stages.emplace_back();
    stage.index = StageIndex(i);
    stage.name = fmt::format("sleeping stage {}", i);
    stage.layer_begin = i;
    stage.layer_end = i + 1;
    stage.has_embedding = i == 0;
    stage.has_head = i + 1 == num_stages;
    stage.predicted_decode_s = layer.overhead_s + layer.token_s;
    stage.predicted_prefill_s =
        layer.overhead_s +
        layer.token_s * (c.chunk_tokens > 0 ? c.chunk_tokens : c.max_microbatch_tokens);
    plan.edges.push_back(edge_plan(c, i, plan.context_tokens));
  }
  return plan;
}

/// What the requests' callbacks, on a thread of the runtime's, tell the one that waits.
class Progress {
 public:
  explicit Progress(int32_t num_requests) : num_open_(num_requests) {}

  void on_token() {
    const std::lock_guard lock(mutex_);
    ++num_tokens_;
  }
  void on_end(const Result<Ok>& how) {
    const std::lock_guard lock(mutex_);
    if (!how.ok() && !error_) error_ = how.error();
    --num_open_;
    ended_ = steady_clock().now();
    changed_.notify_all();
  }
  /// When the last request ended.
  Result<TimePoint> wait() {
    std::unique_lock lock(mutex_);
    const bool done = changed_.wait_for(lock, kRunMax, [&] { return num_open_ == 0 || error_; });
    if (error_) return *error_;
    if (!done) return make_error(ErrorCode::deadline_exceeded, "{} requests left", num_open_);
    return ended_;
  }
  uint64_t num_tokens() {
    const std::lock_guard lock(mutex_);
    return num_tokens_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int32_t num_open_;
  uint64_t num_tokens_ = 0;
  TimePoint ended_;
  std::optional<Error> error_;
};

/// Prompts differ from the first token on: no prefix is in common.
std::vector<TokenId> prompt_of(int32_t request, int32_t count) {
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  for (size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<TokenId>((static_cast<size_t>(request) * 131 + i * 7 + 1) %
                                     static_cast<size_t>(models::kSleepVocabulary));
  return tokens;
}

}  // namespace

Result<PipelineOutcome> run_pipeline_case(const PipelineCase& c) {
  actors::RuntimeOptions options;
  options.in_process = !c.as_processes;
  options.spin_between_ops = false;
  ASSIGN_OR_RETURN(const auto runtime,
                   actors::Runtime::start(pipeline_plan(c), std::move(options)));
  RETURN_IF_ERROR(runtime->wait_ready(kStartMax));
  const auto progress = std::make_shared<Progress>(c.num_requests);
  const TimePoint began = steady_clock().now();
  for (int32_t i = 0; i < c.num_requests; ++i) {
    actors::SequenceRequest request;
    request.prompt = prompt_of(i, c.prompt_tokens);
    request.sampling.max_new_tokens = c.new_tokens;
    request.sampling.ignore_eos = true;
    runtime->submit(std::move(request), kRunMax,
                    {.on_token = [progress](const graph::TokenResult&) { progress->on_token(); },
                     .on_score = {},
                     .on_end = [progress](const Result<Ok>& how) { progress->on_end(how); }});
  }
  ASSIGN_OR_RETURN(const TimePoint ended, progress->wait());
  ASSIGN_OR_RETURN(const actors::RuntimeReport report, runtime->report(kStartMax));
  PipelineOutcome outcome;
  outcome.seconds = to_seconds(ended - began);
  outcome.num_tokens = progress->num_tokens();
  for (const actors::StageReport& stage : report.stages) {
    outcome.num_microbatches = std::max(outcome.num_microbatches, stage.steps);
    // Idle is left out: it is before the first request and after the last.
    const double all =
        to_seconds(stage.busy + stage.transfer + stage.bubble_input + stage.bubble_credit);
    if (to_seconds(stage.busy) / all <= outcome.busy) continue;
    outcome.busy = to_seconds(stage.busy) / all;
    outcome.transfer = to_seconds(stage.transfer) / all;
    outcome.wait_input = to_seconds(stage.bubble_input) / all;
    outcome.wait_credit = to_seconds(stage.bubble_credit) / all;
  }
  runtime->stop();
  return outcome;
}

}  // namespace chainpump::cli
