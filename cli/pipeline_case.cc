#include "cli/pipeline_case.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include "base/kv_layout.h"

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

}  // namespace

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

namespace {

/// Prompts differ from the first token on: no prefix is in common.
std::vector<TokenId> prompt_of(int32_t number, int32_t count) {
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  for (size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<TokenId>((static_cast<size_t>(number) * 131 + i * 7 + 1) %
                                     static_cast<size_t>(models::kSleepVocabulary));
  return tokens;
}

/// Where the time between two reports went, at the stage that was busiest.
void account(const actors::RuntimeReport& before, const actors::RuntimeReport& after,
             DecodeFigures& out) {
  for (size_t i = 0; i < after.stages.size(); ++i) {
    const actors::StageReport& from = before.stages[i];
    const actors::StageReport& to = after.stages[i];
    const double busy = to_seconds(to.busy - from.busy);
    const double transfer = to_seconds(to.transfer - from.transfer);
    const double wait_input = to_seconds(to.bubble_input - from.bubble_input);
    const double wait_credit = to_seconds(to.bubble_credit - from.bubble_credit);
    const double all = busy + transfer + wait_input + wait_credit;
    if (all <= 0 || busy / all <= out.busy) continue;
    out.busy = busy / all;
    out.transfer = transfer / all;
    out.wait_input = wait_input / all;
    out.wait_credit = wait_credit / all;
    out.tokens_per_microbatch = static_cast<double>(to.tokens - from.tokens) /
                                static_cast<double>(std::max<uint64_t>(to.steps - from.steps, 1));
  }
}

}  // namespace

/// What the requests' callbacks, on a thread of the runtime's, tell the one that waits.
class PipelineRun::Progress {
 public:
  Progress(int32_t num_requests, int32_t warm_tokens)
      : warm_tokens_(warm_tokens),
        num_open_(num_requests),
        num_cold_(num_requests),
        counts_(static_cast<size_t>(num_requests)) {}

  void on_token(size_t request) {
    const std::lock_guard lock(mutex_);
    times_.push_back(steady_clock().now());
    if (++counts_[request] != warm_tokens_ || --num_cold_ > 0) return;
    begin_ = times_.size() - 1;
    changed_.notify_all();
  }
  void on_end(const Result<Ok>& how) {
    const std::lock_guard lock(mutex_);
    if (!how.ok() && !error_) error_ = how.error();
    if (end_ == 0) end_ = times_.size() - 1;
    --num_open_;
    changed_.notify_all();
  }
  Status wait_warm() {
    return wait([this] { return num_cold_ == 0; });
  }
  /// Until one has ended, or all.
  Status wait_first_end() {
    return wait([this] { return end_ > 0; });
  }
  Status wait_end() {
    return wait([this] { return num_open_ == 0; });
  }
  TimePoint first_token() {
    const std::lock_guard lock(mutex_);
    return times_.front();
  }
  /// Between when all were warm and the first end.
  double tokens_per_s() {
    const std::lock_guard lock(mutex_);
    if (end_ <= begin_) return 0;
    return static_cast<double>(end_ - begin_) / to_seconds(times_[end_] - times_[begin_]);
  }

 private:
  template <typename Done>
  Status wait(Done done) {
    std::unique_lock lock(mutex_);
    const bool in_time = changed_.wait_for(lock, kRunMax, [&] { return done() || error_; });
    if (error_) return *error_;
    if (!in_time) return make_error(ErrorCode::deadline_exceeded, "{} requests left", num_open_);
    return ok_status();
  }

  const int32_t warm_tokens_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int32_t num_open_;
  int32_t num_cold_;
  std::vector<int32_t> counts_;   // tokens, by request
  std::vector<TimePoint> times_;  // of all tokens
  size_t begin_ = 0;              // the token with which all were warm
  size_t end_ = 0;                // the last before the first end
  std::optional<Error> error_;
};

Result<PipelineRun> PipelineRun::start(const PipelineCase& c) {
  actors::RuntimeOptions options;
  options.in_process = !c.as_processes;
  options.spin_between_ops = false;
  ASSIGN_OR_RETURN(std::unique_ptr<actors::Runtime> runtime,
                   actors::Runtime::start(pipeline_plan(c), std::move(options)));
  RETURN_IF_ERROR(runtime->wait_ready(kStartMax));
  return PipelineRun(c, std::move(runtime));
}

PipelineRun::~PipelineRun() = default;

std::shared_ptr<PipelineRun::Progress> PipelineRun::submit(int32_t num_requests,
                                                           int32_t new_tokens) {
  const auto progress = std::make_shared<Progress>(num_requests, new_tokens / 5 + 1);
  for (int32_t i = 0; i < num_requests; ++i) {
    actors::SequenceRequest request;
    request.prompt = prompt_of(num_prompts_++, case_.prompt_tokens);
    request.sampling.max_new_tokens = new_tokens;
    request.sampling.ignore_eos = true;
    runtime_->submit(
        std::move(request), kRunMax,
        {.on_token = [progress,
                      i](const graph::TokenResult&) { progress->on_token(static_cast<size_t>(i)); },
         .on_score = {},
         .on_end = [progress](const Result<Ok>& how) { progress->on_end(how); }});
  }
  return progress;
}

Result<DecodeFigures> PipelineRun::decode() {
  const auto progress = submit(case_.num_requests, case_.new_tokens);
  RETURN_IF_ERROR(progress->wait_warm());
  ASSIGN_OR_RETURN(const actors::RuntimeReport before, runtime_->report(kStartMax));
  RETURN_IF_ERROR(progress->wait_first_end());
  ASSIGN_OR_RETURN(const actors::RuntimeReport after, runtime_->report(kStartMax));
  RETURN_IF_ERROR(progress->wait_end());
  DecodeFigures figures;
  figures.tokens_per_s = progress->tokens_per_s();
  account(before, after, figures);
  return figures;
}

Result<double> PipelineRun::prompt_seconds() {
  const TimePoint began = steady_clock().now();
  const auto progress = submit(1, 1);
  RETURN_IF_ERROR(progress->wait_end());
  return to_seconds(progress->first_token() - began);
}

}  // namespace chainpump::cli
