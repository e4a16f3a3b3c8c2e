#include "actors/rank_stage.h"

#include <unistd.h>

#include <cstdio>

#include "actors/convert.h"
#include "actors/sequencer_options.h"
#include "base/check.h"

namespace chainpump::actors {
namespace {

constexpr Duration kTickWaitMax = std::chrono::seconds(1);
constexpr Duration kOpeningPoll = std::chrono::milliseconds(1);
constexpr Duration kLeaveMax = std::chrono::seconds(1);
// Longer than a frame takes to come and go over TCP on one machine, shorter than a scheduler slice.
constexpr Duration kSpinMax = std::chrono::microseconds(50);

transport::WaiterOptions waiter_options(graph::SpinPolicy spin) {
  switch (spin) {
    case graph::SpinPolicy::always:
      return {.spin_always = true, .spin_max = kSpinMax};
    case graph::SpinPolicy::never:
      return {.spin_always = false, .spin_max = Duration(0)};
    case graph::SpinPolicy::automatic:
      break;
  }
  return {.spin_always = false, .spin_max = kSpinMax};
}

models::StageSpec stage_spec(const graph::Plan& plan, const graph::StagePlan& stage,
                             const graph::DevicePlan& device, const rpc::LoadParams& params) {
  return {.layer_begin = stage.layer_begin,
          .layer_end = stage.layer_end,
          .has_embedding = stage.has_embedding,
          .has_head = stage.has_head,
          .num_threads = stage.num_threads,
          .cores = device.cores,
          .spin_between_ops = params.spin_between_ops,
          .kv_type = plan.kv.type,
          .num_kv_blocks = plan.kv.num_blocks,
          .max_microbatch_tokens = plan.max_microbatch_tokens,
          .max_sequences = plan.max_sequences,
          .context_tokens = plan.context_tokens,
          .exact_activations = plan.exact_activations,
          .isa = params.isa,
          .cache_folder = params.cache_folder};
}

Error out_of_order(const char* call) {
  return make_error(ErrorCode::invalid_argument, "'{}' came out of order", call);
}

Error leaving() { return make_error(ErrorCode::cancelled, "the rank is shutting down"); }

template <typename Link>
rpc::LinkReport link_report(uint32_t edge, bool outgoing, const Link& stats) {
  return {.edge = edge,
          .outgoing = outgoing,
          .transport = stats.transport,
          .frames = stats.frames,
          .payload_bytes = stats.payload_bytes,
          .metadata_bytes = stats.metadata_bytes,
          .copied_bytes = stats.payload_copies_bytes,
          .refused_frames = stats.refused_frames,
          .latency_p50_us = stats.latency_p50_us,
          .latency_p99_us = stats.latency_p99_us,
          .blocked_on_credit_ns = stats.blocked_on_credit.count()};
}

}  // namespace

RankStage::RankStage(std::shared_ptr<LoopbackHub> hub, std::shared_ptr<transport::Waiter> waiter,
                     std::shared_ptr<StepTrace> trace, const Clock& clock)
    : clock_(clock), waiter_(std::move(waiter)), trace_(std::move(trace)), links_(std::move(hub)) {}

RankStage::~RankStage() = default;

const graph::EdgePlan& RankStage::input_edge() const {
  return is_first() ? plan_.edges.back() : plan_.edges[static_cast<size_t>(stage_.value) - 1];
}

const graph::EdgePlan& RankStage::output_edge() const {
  return plan_.edges[static_cast<size_t>(stage_.value)];
}

void RankStage::load(LoadCommand command) {
  if (state_ != State::empty) return command.reply(out_of_order("load"));
  Result<rpc::LoadReport> report = load_stage(command.params, command.progress);
  if (report.ok()) state_ = State::loaded;
  command.reply(std::move(report));
}

Result<rpc::LoadReport> RankStage::load_stage(const rpc::LoadParams& params,
                                              const rpc::ProgressReport& progress) {
  ASSIGN_OR_RETURN(plan_, from_wire(params.plan));
  if (params.rank >= static_cast<uint32_t>(num_ranks(plan_)))
    return make_error(ErrorCode::invalid_argument, "the plan has no rank {}", params.rank);
  stage_ = stage_of(plan_, RankId(params.rank));
  lane_ = lane_of(plan_, RankId(params.rank));
  for (graph::EdgePlan& edge : plan_.edges) edge.id = link_of(plan_, lane_, edge.id);
  const graph::StagePlan& stage = plan_.stages[static_cast<size_t>(stage_.value)];
  ASSIGN_OR_RETURN(
      executor_,
      models::load_stage(plan_.model_path,
                         stage_spec(plan_, stage, stage.devices[lane_.value], params), progress));
  ASSIGN_OR_RETURN(const auto address,
                   links_.listen(input_edge(), output_edge(), params.listen_address));
  waiter_->set_options(waiter_options(input_edge().spin));
  const models::ExecutorStats stats = executor_->stats();
  if (!stats.cache_note.empty())
    std::fprintf(stderr, "chainpump: stage %d: %s\n", stage_.value, stats.cache_note.c_str());
  return rpc::LoadReport{.numerics_id = stats.numerics_id,
                         .weight_bytes_read = stats.weight_bytes_read,
                         .weight_bytes_held = stats.weight_bytes_held,
                         .kv_bytes = stats.kv_bytes,
                         .listen_address = address.first,
                         .listen_port = address.second,
                         .vocabulary_size = executor_->limits().vocabulary_size,
                         .hidden_size = executor_->hidden_size()};
}

void RankStage::connect(ConnectCommand command) {
  if (state_ != State::loaded) return command.reply(out_of_order("connect"));
  if (const Status opening = open_links(command.params); !opening.ok())
    return command.reply(opening.error());
  opened_ = std::move(command.reply);
  state_ = State::opening;
}

Status RankStage::open_links(const rpc::ConnectParams& params) {
  if (params.links.size() != 1 || params.links[0].edge != output_edge().id.value ||
      params.accept.size() != 1 || params.accept[0].edge != input_edge().id.value)
    return make_error(ErrorCode::invalid_argument,
                      "a stage of a chain has edge {} in and edge {} out", input_edge().id,
                      output_edge().id);
  ASSIGN_OR_RETURN(input_, links_.accept(input_edge(), plan_.epoch, params.accept[0]));
  ASSIGN_OR_RETURN(output_, links_.connect(output_edge(), plan_.epoch, params.links[0]));
  return ok_status();
}

void RankStage::check_opened() {
  input_->progress();
  output_->progress();
  const auto failed = [](const auto& link) { return link.state() == transport::LinkState::failed; };
  if (failed(*input_) || failed(*output_)) {
    const Error& why = failed(*input_) ? input_->error() : output_->error();
    break_down(
        make_error(why.code, "{} link: {}", failed(*input_) ? "input" : "output", why.message));
    return opened_(broken_by_);
  }
  if (input_->state() == transport::LinkState::open &&
      output_->state() == transport::LinkState::open)
    return start_running();
  waiter_->wait_until(clock_.now() + kOpeningPoll);
}

void RankStage::start_running() {
  StageLoopOptions options;
  options.stage = stage_;
  options.trace = trace_;
  options.is_first = is_first();
  options.is_last = static_cast<size_t>(stage_.value) + 1 == plan_.stages.size();
  if (is_first()) {
    options.sequencer = sequencer_options(plan_, executor_->limits().vocabulary_size);
    options.sequencer->lane = lane_.value;
  }
  loop_ = std::make_unique<StageLoop>(
      options, *executor_, std::move(input_), std::move(output_),
      [this](const graph::Deliveries& deliveries) { lane_server_->deliver(deliveries); }, *waiter_,
      clock_);
  if (is_first()) lane_server_ = std::make_unique<LaneServer>(plan_, loop_->sequencer(), clock_);
  state_ = State::running;
  opened_(Ok{});
}

std::optional<Error> RankStage::why_not_running(const char* call) const {
  if (state_ == State::broken) return broken_by_;
  if (state_ == State::leaving) return leaving();
  if (state_ != State::running) return out_of_order(call);
  if (!is_first())
    return make_error(ErrorCode::invalid_argument,
                      "only the first stage takes requests, this is stage {}", stage_);
  return std::nullopt;
}

void RankStage::attach(AttachCommand command) {
  if (std::optional<Error> why = why_not_running("attach")) return command.reply(std::move(*why));
  lane_server_->attach(std::move(command));
}

void RankStage::detach(const DetachCommand& command) {
  if (lane_server_) lane_server_->detach(command);
}

void RankStage::submit(SubmitCommand command) {
  if (std::optional<Error> why = why_not_running("submit")) return command.reply(std::move(*why));
  lane_server_->submit(std::move(command));
}

void RankStage::cancel(CancelCommand command) {
  if (!lane_server_) return command.reply(Ok{});  // there is nothing that could be cancelled
  lane_server_->cancel(std::move(command));
}

void RankStage::break_down(const Error& error) {
  broken_by_ = error;
  state_ = State::broken;
  // First who judges, so that clients need not wait for the judgement.
  answer_watchers(broken_by_);
  if (lane_server_) lane_server_->end_all(broken_by_);
}

void RankStage::watch(WatchCommand command) {
  if (state_ == State::empty) return command.reply(out_of_order("watch"));
  watchers_.push_back(std::move(command.reply));
  if (state_ == State::broken) answer_watchers(broken_by_);
}

void RankStage::answer_watchers(const Error& why) {
  for (rpc::Reply<Ok>& watcher : watchers_) watcher(why);
  watchers_.clear();
}

void RankStage::stats(StatsCommand command) {
  if (state_ == State::empty) return command.reply(out_of_order("stats"));
  command.reply(report());
}

rpc::RankStats RankStage::report() const {
  const graph::StagePlan& plan = plan_.stages[static_cast<size_t>(stage_.value)];
  const models::ExecutorStats held = executor_->stats();
  rpc::RankStats out;
  const std::vector<int>& cores = plan.devices[lane_.value].cores;
  out.stage = {.lane = lane_.value,
               .stage = stage_.value,
               .layer_begin = plan.layer_begin,
               .layer_end = plan.layer_end,
               .pid = getpid(),
               .cores = {cores.begin(), cores.end()},
               .weight_bytes_read = held.weight_bytes_read,
               .weight_bytes_held = held.weight_bytes_held,
               .kv_bytes = held.kv_bytes};
  if (!loop_) return out;
  const StageLoopStats loop = loop_->stats();
  out.stage.steps = loop.steps;
  out.stage.tokens = loop.tokens;
  out.stage.busy_ns = loop.compute.count();
  out.stage.transfer_ns = loop.transfer.count();
  out.stage.bubble_input_ns = loop.wait_input.count();
  out.stage.bubble_credit_ns = loop.wait_credit.count();
  out.stage.bubble_other_ns = loop.idle.count();
  out.stage.wall_ns =
      (loop.compute + loop.transfer + loop.wait_input + loop.wait_credit + loop.idle).count();
  // As the plan numbers them: the stage's lane says which link it is.
  const auto edge_of = [&](const graph::EdgePlan& edge) {
    return static_cast<uint32_t>(&edge - plan_.edges.data());
  };
  out.links.push_back(link_report(edge_of(input_edge()), false, loop_->input_stats()));
  out.links.push_back(link_report(edge_of(output_edge()), true, loop_->output_stats()));
  return out;
}

void RankStage::shutdown(ShutdownCommand command) {
  if (lane_server_) lane_server_->end_all(leaving());
  if (!opened_.answered()) opened_(leaving());
  answer_watchers(leaving());
  if (state_ == State::leaving) return command.reply(out_of_order("shutdown"));
  if (state_ != State::running) {
    state_ = State::gone;
    return command.reply(Ok{});
  }
  left_ = std::move(command.reply);
  leave_deadline_ = clock_.now() + kLeaveMax;
  state_ = State::leaving;
  loop_->close();
}

bool RankStage::ticking() const {
  return state_ == State::opening || state_ == State::running || state_ == State::leaving;
}

void RankStage::tick() {
  switch (state_) {
    case State::opening:
      return check_opened();
    case State::running: {
      const Result<bool> moved = loop_->step();
      if (!moved.ok()) return break_down(moved.error());
      if (!*moved) loop_->wait_until(clock_.now() + kTickWaitMax);
      return;
    }
    case State::leaving:
      loop_->drain();
      loop_->wait_until(clock_.now() + kOpeningPoll);
      if (!loop_->closed() && clock_.now() < leave_deadline_) return;
      state_ = State::gone;
      return left_(Ok{});
    case State::empty:
    case State::loaded:
    case State::broken:
    case State::gone:
      return;
  }
}

}  // namespace chainpump::actors
