#include "actors/rank_stage.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "actors/convert.h"
#include "actors/sequencer_options.h"
#include "base/check.h"

namespace chainpump::actors {
namespace {

constexpr Duration kTickWaitMax = std::chrono::seconds(1);
constexpr Duration kOpeningPoll = std::chrono::milliseconds(1);
constexpr Duration kTimeoutMax = std::chrono::hours(24 * 365);  // no sum overflows
constexpr int32_t kSequencesMax = 64;                           // of one request
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

/// What is wrong with the model's numbers is wrong with the file.
Error named(const Error& how, const std::string& model_path) {
  if (how.code != ErrorCode::internal) return how;
  return make_error(
      how.code,
      "{}: the weights in {} are damaged; compare the file with its source or fetch it again "
      "('chainpump inspect' lists what is in it)",
      how.message, model_path);
}

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
      [this](const graph::Deliveries& deliveries) { deliver(deliveries); }, *waiter_, clock_);
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
  clients_.attach(command.client, std::move(command.sink));
  command.reply(Ok{});
}

void RankStage::detach(const DetachCommand& command) {
  for (const RequestId id : clients_.detach(command.client))
    if (loop_) loop_->sequencer().cancel(id);
}

void RankStage::submit(SubmitCommand command) {
  if (std::optional<Error> why = why_not_running("submit")) return command.reply(std::move(*why));
  if (!clients_.has(command.client))
    return command.reply(make_error(ErrorCode::invalid_argument, "not attached to the lane"));
  for (rpc::GenerateRequest& request : command.requests) {
    const uint64_t request_id = request.request_id;
    const uint32_t first = request.sequence_index;
    const int32_t num_sequences = request.num_sequences;
    const RequestId id(++last_request_);
    Status taken = clients_.check(command.client, request_id);
    if (taken.ok() && (num_sequences < 1 || num_sequences > kSequencesMax))
      taken = make_error(ErrorCode::invalid_argument, "a request of {} sequences, the limit is {}",
                         num_sequences, kSequencesMax);
    if (taken.ok()) taken = submit_one(id, std::move(request));
    if (taken.ok())
      clients_.add(id, command.client, request_id, first, num_sequences);
    else
      clients_.refuse(command.client, request_id, first,
                      std::clamp(num_sequences, 1, kSequencesMax), taken.error());
  }
  flush_results();
  command.reply(Ok{});
}

Status RankStage::submit_one(RequestId id, rpc::GenerateRequest wire) {
  const TimePoint now = clock_.now();
  graph::Request request;
  request.id = id;
  request.tenant = graph::TenantId(wire.tenant);
  request.cache_salt = wire.cache_salt;
  request.priority = wire.priority;
  request.num_choices = wire.num_sequences;
  request.first_choice = wire.sequence_index;
  request.sampling = from_wire(wire.sampling);
  request.score = {.first_position = wire.score.first_position,
                   .full_path = std::move(wire.score.full_path)};
  request.prompt = std::move(wire.prompt);
  if (wire.timeout_ns > 0)
    request.deadline = now + std::min(Duration(wire.timeout_ns), Duration(kTimeoutMax));
  return loop_->sequencer().submit(std::move(request), now);
}

void RankStage::cancel(CancelCommand command) {
  end_all(clients_.find(command.client, command.request_ids),
          make_error(ErrorCode::cancelled, "the request was cancelled"));
  flush_results();
  command.reply(Ok{});
}

void RankStage::end_all(const std::vector<RequestId>& ids, const Status& how) {
  for (const RequestId id : ids) {
    loop_->sequencer().cancel(id);
    clients_.end_all(id, how);
  }
}

void RankStage::flush_results() {
  const rpc::LaneStats stats = lane_stats();
  const std::vector<RequestId> refused = clients_.flush(stats);
  if (refused.empty()) return;
  end_all(refused, make_error(ErrorCode::overloaded, "the client does not take its results"));
  (void)clients_.flush(stats);  // the ends: these fit, or the client is gone
}

void RankStage::deliver(const graph::Deliveries& deliveries) {
  for (const auto& [choice, token] : deliveries.tokens)
    clients_.token(choice.request, choice.index, to_wire(token));
  for (const auto& [choice, score] : deliveries.scores)
    clients_.score(choice.request, choice.index, to_wire(score));
  for (const auto& [choice, how] : deliveries.ended)
    clients_.end(choice.request, choice.index,
                 how.ok() ? ok_status() : named(how.error(), plan_.model_path));
  flush_results();
}

void RankStage::break_down(const Error& error) {
  broken_by_ = error;
  state_ = State::broken;
  // First who judges, so that clients need not wait for the judgement.
  answer_watchers(broken_by_);
  for (const RequestId id : clients_.all()) clients_.end_all(id, broken_by_);
  (void)clients_.flush({});
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

rpc::LaneStats RankStage::lane_stats() {
  if (!loop_ || !is_first()) return {};
  const graph::Sequencer& sequencer = loop_->sequencer();
  const graph::SequencerStats now = sequencer.stats();
  // A prompt's usual chunk, alone in its step.
  const int32_t chunk =
      plan_.prefill_chunk_tokens > 0 ? plan_.prefill_chunk_tokens : plan_.max_microbatch_tokens;
  graph::StepWork work;
  work.add(chunk, 0);
  const double step_s = sequencer.step_cost().predict_s(work);
  return {.num_taken = 0,  // each client's own
          .num_free_blocks = now.num_free_blocks,
          .queue_room = plan_.max_queued - now.num_waiting,
          .waiting_tokens = now.waiting_tokens,
          .num_running = now.num_running,
          .tokens_per_s = step_s > 0 ? chunk / step_s : 0};
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
  end_all(clients_.all(), leaving());
  (void)clients_.flush({});
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
