#include "actors/stage_loop.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace chainpump::actors {
namespace {

template <typename Link>
void watch(transport::Waiter& waiter, Link& link) {
  waiter.add({.progress = [&link] { return link.progress(); },
              .arm = [&link] { return link.arm(); },
              .event_fd = link.event_fd()});
}

/// What one of our own ranks sent and cannot be read is no mistake of whoever typed the command.
template <typename T>
Result<T> from_peer(Result<T> decoded, const char* peer) {
  if (decoded.ok()) return decoded;
  return make_error(ErrorCode::internal, "what the {} stage sent cannot be read: {}", peer,
                    decoded.error().message);
}

std::span<const float> as_floats(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}

}  // namespace

StageLoop::StageLoop(const StageLoopOptions& options, models::StageExecutor& executor,
                     std::unique_ptr<transport::ReceiveLink> input,
                     std::unique_ptr<transport::SendLink> output, OnDeliveries on_deliveries,
                     transport::Waiter& waiter, StepClock& clock)
    : options_(options),
      executor_(executor),
      input_(std::move(input)),
      output_(std::move(output)),
      on_deliveries_(std::move(on_deliveries)),
      waiter_(waiter),
      clock_(clock) {
  CHECK_EQ(options.is_first, options.sequencer.has_value());
  if (options.sequencer) sequencer_.emplace(*options.sequencer);
  watch(waiter_, *input_);
  watch(waiter_, *output_);
}

StageLoop::~StageLoop() {
  waiter_.remove(input_->event_fd());
  waiter_.remove(output_->event_fd());
}

graph::Sequencer& StageLoop::sequencer() {
  CHECK(sequencer_.has_value());
  return *sequencer_;
}

Status StageLoop::check_links() const {
  if (input_->state() == transport::LinkState::failed)
    return make_error(input_->error().code, "input link: {}", input_->error().message);
  if (output_->state() == transport::LinkState::failed)
    return make_error(output_->error().code, "output link: {}", output_->error().message);
  return ok_status();
}

Result<bool> StageLoop::step() {
  bool moved = input_->progress();
  moved |= output_->progress();
  RETURN_IF_ERROR(check_links());
  if (options_.is_first) {
    ASSIGN_OR_RETURN(const bool took, take_result());
    moved |= end_overdue();
    ASSIGN_OR_RETURN(const bool ran, run_scheduled());
    moved |= took || ran;
    taken_.reset();
  } else {
    ASSIGN_OR_RETURN(const bool ran, run_received());
    moved |= ran;
  }
  clock_.charge(StepPart::transfer);
  return moved;
}

/// Whether a step may start; with input there, waiting for a slot is noted for the step's event.
bool StageLoop::has_slot(bool has_input) {
  if (!slot_) {
    slot_ = output_->try_acquire();
    if (slot_ && credit_from_) credit_until_ = clock_.now();
    if (!slot_ && has_input && !credit_from_) credit_from_ = clock_.now();
  }
  return slot_ != nullptr;
}

Result<bool> StageLoop::take_result() {
  taken_ = input_->try_receive();
  if (!taken_) return false;
  if (taken_->kind() != transport::FrameKind::result)
    return make_error(ErrorCode::internal, "the return edge carried a frame that is no result");
  ASSIGN_OR_RETURN(
      result_,
      from_peer(graph::decode_step_result(taken_->metadata(), executor_.limits()), "last"));
  deliveries_.clear();
  RETURN_IF_ERROR(sequencer_->on_result(result_, clock_.now(), deliveries_));
  on_deliveries_(deliveries_);
  return true;
}

bool StageLoop::end_overdue() {
  const std::optional<TimePoint> due = sequencer_->next_deadline();
  if (!due) return false;
  const TimePoint now = clock_.now();
  if (now < *due) return false;
  deliveries_.clear();
  sequencer_->on_time(now, deliveries_);
  on_deliveries_(deliveries_);
  return true;
}

Result<bool> StageLoop::run_scheduled() {
  if (!has_slot(!sequencer_->idle())) return false;
  clock_.charge(StepPart::transfer);
  const TimePoint received = clock_.last();
  const std::optional<graph::Microbatch> microbatch = sequencer_->next();
  if (!microbatch) return false;
  metadata_.clear();
  encode(*microbatch, metadata_);
  RETURN_IF_ERROR(run(*microbatch, {}, metadata_, received));
  return true;
}

Result<bool> StageLoop::run_received() {
  if (!frame_) frame_ = input_->try_receive();
  if (!frame_ || !has_slot(true)) return false;
  const std::unique_ptr<transport::ReceivedFrame> frame = std::move(frame_);
  if (frame->kind() != transport::FrameKind::activation)
    return make_error(ErrorCode::internal, "the input edge carried a frame that is no activation");
  ASSIGN_OR_RETURN(
      const graph::Microbatch microbatch,
      from_peer(graph::decode_microbatch(frame->metadata(), executor_.limits()), "previous"));
  const std::span<const float> input = as_floats(frame->payload());
  const int64_t num_floats = int64_t{microbatch.num_tokens()} * executor_.hidden_size();
  if (static_cast<int64_t>(frame->payload().size()) != num_floats * int64_t{sizeof(float)})
    return make_error(ErrorCode::internal, "a frame of {} tokens carried {} payload bytes, not {}",
                      microbatch.num_tokens(), frame->payload().size(),
                      num_floats * int64_t{sizeof(float)});
  RETURN_IF_ERROR(run(microbatch, input, frame->metadata(), frame->received_at()));
  return true;
}

Status StageLoop::run(const graph::Microbatch& microbatch, std::span<const float> input,
                      std::span<std::byte> metadata, TimePoint received) {
  result_.id = microbatch.id;
  result_.slowest = microbatch.slowest;
  result_.slowest_stage = microbatch.slowest_stage;
  result_.tokens.clear();
  result_.scores.clear();
  std::span<float> output;
  if (!options_.is_last) {
    const auto num_floats =
        static_cast<size_t>(microbatch.num_tokens()) * static_cast<size_t>(executor_.hidden_size());
    const std::span<std::byte> payload = slot_->payload();
    CHECK_LE(num_floats * sizeof(float), payload.size());
    output = {reinterpret_cast<float*>(payload.data()), num_floats};
  }
  clock_.charge(StepPart::transfer);
  StepEvent event{.microbatch = microbatch.id,
                  .lane = options_.lane,
                  .num_tokens = microbatch.num_tokens(),
                  .received = received,
                  .compute_from = clock_.last()};
  const std::optional<TimePoint> credit_from = std::exchange(credit_from_, {});
  const std::optional<TimePoint> credit_until = std::exchange(credit_until_, {});
  const bool waited = credit_until && *credit_until > received;
  event.credit_from = waited ? std::max(*credit_from, received) : event.compute_from;
  event.credit_until = waited ? *credit_until : event.compute_from;
  RETURN_IF_ERROR(executor_.run(microbatch, input, output, result_));
  const Duration spent = clock_.charge(StepPart::compute);
  event.compute_until = clock_.last();
  RETURN_IF_ERROR(send(microbatch.id, metadata, output, spent));
  clock_.charge(StepPart::transfer);
  event.sent = clock_.last();
  if (options_.trace) options_.trace->record(event);
  ++steps_;
  tokens_ += static_cast<uint64_t>(microbatch.num_tokens());
  return ok_status();
}

/// To the stage after, or what the last stage made to the first.
Status StageLoop::send(MicrobatchId microbatch, std::span<std::byte> metadata,
                       std::span<const float> output, Duration spent) {
  if (!options_.is_last) {
    graph::note_step_time(metadata, spent, options_.stage);
    return output_->send(std::move(slot_), transport::FrameKind::activation, microbatch, metadata,
                         static_cast<int64_t>(output.size_bytes()));
  }
  metadata_.clear();
  encode(result_, metadata_);
  graph::note_step_time(metadata_, spent, options_.stage);
  return output_->send(std::move(slot_), transport::FrameKind::result, microbatch, metadata_, 0);
}

StepPart StageLoop::waiting_for() const {
  const bool is_idle = sequencer_ ? sequencer_->idle() : !frame_ && !executor_.holds_sequences();
  if (is_idle) return StepPart::idle;
  const bool could_run = sequencer_ ? !slot_ : frame_ != nullptr;
  return could_run ? StepPart::wait_credit : StepPart::wait_input;
}

std::optional<TimePoint> StageLoop::next_deadline() const {
  return sequencer_ ? sequencer_->next_deadline() : std::nullopt;
}

void StageLoop::close() {
  frame_.reset();
  taken_.reset();
  slot_.reset();
  input_->close();
  output_->close();
}

void StageLoop::drain() {
  while (input_->try_receive()) continue;
}

bool StageLoop::closed() const {
  const auto done = [](transport::LinkState state) {
    return state == transport::LinkState::closed || state == transport::LinkState::failed;
  };
  return done(input_->state()) && done(output_->state());
}

}  // namespace chainpump::actors
