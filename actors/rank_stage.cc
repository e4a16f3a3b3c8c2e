#include "actors/rank_stage.h"

#include <unistd.h>

#include <cstdio>

#include "actors/convert.h"

namespace chainpump::actors {
namespace {

constexpr Duration kTickWaitMax = std::chrono::milliseconds(100);  // an idle rank beats, too
constexpr Duration kPostEvery = std::chrono::milliseconds(5);      // on the link board
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

/// With room for the shares of all its lanes.
models::StageSpec stage_spec(const graph::Plan& plan, const graph::RankPlace& place,
                             const rpc::LoadParams& params, Beat* beat) {
  const graph::StagePlan& stage = plan.stages[static_cast<size_t>(place.stage.value)];
  const int32_t num_lanes = lanes_per_rank(plan, place.stage);
  return {.layer_begin = stage.layer_begin,
          .layer_end = stage.layer_end,
          .has_embedding = stage.has_embedding,
          .has_head = stage.has_head,
          .num_threads = stage.num_threads,
          .cores = stage.devices[static_cast<size_t>(place.replica)].cores,
          .spin_between_ops = params.spin_between_ops,
          .kv_type = plan.kv.type,
          .num_kv_blocks = plan.kv.num_blocks * num_lanes,
          .max_microbatch_tokens = plan.max_microbatch_tokens,
          .max_sequences = plan.max_sequences * num_lanes,
          .context_tokens = plan.context_tokens,
          .exact_activations = plan.exact_activations,
          .beat = beat,
          .isa = params.isa,
          .cache_folder = params.cache_folder};
}

Error out_of_order(const char* call) {
  return make_error(ErrorCode::invalid_argument, "'{}' came out of order", call);
}

Error leaving() { return make_error(ErrorCode::cancelled, "the rank is shutting down"); }

}  // namespace

RankStage::RankStage(std::shared_ptr<LoopbackHub> hub, std::shared_ptr<transport::Waiter> waiter,
                     std::shared_ptr<StepTrace> trace, std::shared_ptr<Beat> beat,
                     const Clock& clock, std::shared_ptr<LinkBoard> board)
    : clock_(clock),
      hub_(std::move(hub)),
      waiter_(std::move(waiter)),
      trace_(std::move(trace)),
      beat_(std::move(beat)),
      board_(std::move(board)),
      fault_(clock, beat_.get()) {}

RankStage::~RankStage() = default;

void RankStage::load(LoadCommand command) {
  if (state_ != State::empty) return load_again(std::move(command));
  Result<rpc::LoadReport> report = load_stage(command);
  if (!report.ok()) return command.reply(std::move(report));
  state_ = State::ready;
  rank_ = RankId(command.params.rank);
  report_ = *report;
  load_again(std::move(command));
}

/// By a coordinator that does not know of the load before.
void RankStage::load_again(LoadCommand command) {
  if (std::optional<Error> why = why_not_ready("load")) return command.reply(std::move(*why));
  if (command.params.rank != rank_.value)
    return command.reply(make_error(ErrorCode::invalid_argument,
                                    "it is rank {} already, not rank {}", rank_,
                                    command.params.rank));
  report_.lanes = lanes_->states();
  command.reply(report_);
}

Result<rpc::LoadReport> RankStage::load_stage(const LoadCommand& command) {
  const rpc::LoadParams& params = command.params;
  ASSIGN_OR_RETURN(plan_, from_wire(params.plan));
  if (params.rank >= static_cast<uint32_t>(num_ranks(plan_)))
    return make_error(ErrorCode::invalid_argument, "the plan has no rank {}", params.rank);
  const RankId rank(params.rank);
  place_ = place_of(plan_, rank);
  ModelPlace model{plan_.model_path};
  if (command.find_model) {
    ASSIGN_OR_RETURN(model, command.find_model(stage_plan(), command.progress));
  }
  const auto progress = [&, before = model.fetched_bytes](int64_t done, int64_t total) {
    command.progress(before + done, before + total);
  };
  ASSIGN_OR_RETURN(
      executor_,
      models::load_stage(model.path, stage_spec(plan_, place_, params, beat_.get()), progress));
  lanes_ =
      std::make_unique<RankLanes>(plan_, rank, hub_, waiter_, trace_, *executor_, fault_, clock_);
  ASSIGN_OR_RETURN(const auto address, lanes_->listen(params.listen_address));
  copies_ = std::make_unique<RankCopies>(plan_, rank, *lanes_, *executor_, *waiter_);
  waiter_->set_options(waiter_options(plan_.edges.front().spin));
  const models::ExecutorStats stats = executor_->stats();
  if (!stats.cache_note.empty())
    std::fprintf(stderr, "chainpump: stage %d: %s\n", place_.stage.value, stats.cache_note.c_str());
  return rpc::LoadReport{.numerics_id = stats.numerics_id,
                         .weight_bytes_read = stats.weight_bytes_read,
                         .weight_bytes_held = stats.weight_bytes_held,
                         .kv_bytes = stats.kv_bytes,
                         .listen_address = address.first,
                         .listen_port = address.second,
                         .vocabulary_size = executor_->limits().vocabulary_size,
                         .hidden_size = executor_->hidden_size()};
}

std::optional<Error> RankStage::why_not_ready(const char* call) const {
  if (state_ == State::broken) return broken_by_;
  if (state_ == State::leaving) return leaving();
  if (state_ != State::ready) return out_of_order(call);
  return std::nullopt;
}

void RankStage::connect(ConnectCommand command) {
  if (std::optional<Error> why = why_not_ready("connect")) return command.reply(std::move(*why));
  lanes_->connect(std::move(command));
}

void RankStage::fence(FenceCommand command) {
  if (std::optional<Error> why = why_not_ready("fence")) return command.reply(std::move(*why));
  copies_->take_arrived();
  lanes_->fence(std::move(command));
}

void RankStage::resume(ResumeCommand command) {
  if (std::optional<Error> why = why_not_ready("resume")) return command.reply(std::move(*why));
  lanes_->resume(std::move(command));
}

void RankStage::arm(ArmCommand command) {
  if (std::optional<Error> why = why_not_ready("arm")) return command.reply(std::move(*why));
  fault_.arm(command.fault);
  command.reply(Ok{});
}

void RankStage::take_in(TakeInCommand command) {
  if (std::optional<Error> why = why_not_ready("takeIn")) return command.reply(std::move(*why));
  copies_->take_in(std::move(command));
}

void RankStage::copy(CopyCommand command) {
  if (std::optional<Error> why = why_not_ready("copy")) return command.reply(std::move(*why));
  copies_->copy(std::move(command));
}

void RankStage::finish_copy(FinishCopyCommand command) {
  if (std::optional<Error> why = why_not_ready("finishCopy")) return command.reply(std::move(*why));
  copies_->finish(std::move(command));
}

std::optional<Error> RankStage::why_no_door(const char* call) const {
  std::optional<Error> why = why_not_ready(call);
  if (!why && place_.stage.value != 0)
    why = make_error(ErrorCode::invalid_argument,
                     "only the first stage takes requests, this is stage {}", place_.stage);
  return why;
}

void RankStage::attach(AttachCommand command) {
  if (std::optional<Error> why = why_no_door("attach")) return command.reply(std::move(*why));
  if (LaneServer* const door = lanes_->door(command.lane)) return door->attach(std::move(command));
  command.reply(make_error(ErrorCode::invalid_argument,
                           "this rank does not serve lane {}, or not yet", command.lane));
}

void RankStage::detach(const DetachCommand& command) {
  if (LaneServer* const door = lanes_ ? lanes_->door_of(command.client) : nullptr)
    door->detach(command);
}

void RankStage::submit(SubmitCommand command) {
  if (std::optional<Error> why = why_no_door("submit")) return command.reply(std::move(*why));
  if (LaneServer* const door = lanes_->door_of(command.client))
    return door->submit(std::move(command));
  command.reply(make_error(ErrorCode::invalid_argument, "not attached to a lane"));
}

void RankStage::cancel(CancelCommand command) {
  if (LaneServer* const door = lanes_ ? lanes_->door_of(command.client) : nullptr)
    return door->cancel(std::move(command));
  command.reply(Ok{});  // there is nothing that could be cancelled
}

void RankStage::break_down(const Error& error) {
  broken_by_ = error;
  state_ = State::broken;
  // First who judges, so that clients need not wait for the judgement.
  answer_watchers(broken_by_);
  lanes_->end_all(broken_by_);
}

void RankStage::watch(WatchCommand command) {
  if (state_ == State::empty) return command.reply(out_of_order("watch"));
  const bool of_links = command.of_links;
  watchers_.push_back(std::move(command));
  if (state_ == State::broken) return answer_watchers(broken_by_);
  if (const auto broken = of_links ? lanes_->broken() : std::nullopt)
    answer_watchers(*broken, true);
}

void RankStage::answer_watchers(const Error& why, bool of_links_only) {
  std::vector<WatchCommand> answered;
  for (size_t i = 0; i < watchers_.size();) {
    if (of_links_only && !watchers_[i].of_links) {
      ++i;
      continue;
    }
    answered.push_back(std::move(watchers_[i]));
    watchers_.erase(watchers_.begin() + static_cast<ptrdiff_t>(i));
  }
  for (WatchCommand& watcher : answered) watcher.reply(why);
}

void RankStage::stats(StatsCommand command) {
  if (state_ == State::empty) return command.reply(out_of_order("stats"));
  command.reply(report());
}

rpc::RankStats RankStage::report() const {
  const graph::StagePlan& plan = stage_plan();
  const models::ExecutorStats held = executor_->stats();
  rpc::RankStats out;
  out.stage.stage = place_.stage.value;
  out.stage.layer_begin = plan.layer_begin;
  out.stage.layer_end = plan.layer_end;
  out.stage.pid = getpid();
  out.stage.cores = plan.devices[static_cast<size_t>(place_.replica)].cores;
  out.stage.weight_bytes_read = held.weight_bytes_read;
  out.stage.weight_bytes_held = held.weight_bytes_held;
  out.stage.kv_bytes = held.kv_bytes;
  lanes_->report(out);
  return out;
}

void RankStage::shutdown(ShutdownCommand command) {
  // Not cancelled: whoever asked did not ask for this, and is told elsewhere why it is done.
  if (lanes_) lanes_->end_all(make_error(ErrorCode::disconnected, "the rank is shutting down"));
  answer_watchers(leaving());
  if (state_ == State::leaving) return command.reply(out_of_order("shutdown"));
  if (state_ != State::ready || lanes_->closed()) {
    state_ = State::gone;
    return command.reply(Ok{});
  }
  copies_.reset();
  left_ = std::move(command.reply);
  leave_deadline_ = clock_.now() + kLeaveMax;
  state_ = State::leaving;
  lanes_->close();
}

bool RankStage::ticking() const { return state_ == State::ready || state_ == State::leaving; }

void RankStage::tick() {
  beat_->tick();
  if (state_ == State::leaving) {
    lanes_->drain();
    lanes_->wait_until(clock_.now() + kOpeningPoll);
    if (!lanes_->closed() && clock_.now() < leave_deadline_) return;
    state_ = State::gone;
    return left_(Ok{});
  }
  if (state_ != State::ready) return;
  const Result<bool> moved = lanes_->step();
  if (!moved.ok()) return break_down(moved.error());
  if (const TimePoint now = clock_.now(); now - posted_ >= kPostEvery) {
    board_->write(lanes_->link_ends(), lanes_->step_totals());
    posted_ = now;
  }
  if (const std::optional<Error> broken = lanes_->take_broken()) answer_watchers(*broken, true);
  const bool copied = copies_->step();
  const bool opening = lanes_->opening() || copies_->connecting();
  if (!*moved && !copied)
    lanes_->wait_until(clock_.now() + (opening ? kOpeningPoll : kTickWaitMax));
}

}  // namespace chainpump::actors
