#include "actors/stage_loop.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace chainpump::actors {
namespace {

// Of a fenced stage: longer than most steps of the stage before it, short for whoever waits.
constexpr Duration kSilentInputMax = std::chrono::seconds(1);

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

template <typename Link>
bool has_ended(const Link& link) {
  return link.state() == transport::LinkState::closed ||
         link.state() == transport::LinkState::failed;
}

graph::StepWork work_of(const graph::Microbatch& microbatch) {
  graph::StepWork work;
  for (const graph::SequenceSlice& slice : microbatch.slices)
    work.add(std::ssize(slice.tokens), slice.first_position);
  return work;
}

std::span<const float> as_floats(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}

}  // namespace

StageLoop::StageLoop(const StageLoopOptions& options, models::StageExecutor& executor,
                     OnDeliveries on_deliveries, transport::Waiter& waiter, StepClock& clock)
    : options_(options),
      executor_(executor),
      work_(options.work, executor),
      on_deliveries_(std::move(on_deliveries)),
      waiter_(waiter),
      clock_(clock) {
  CHECK_EQ(options.work.is_first, options.sequencer.has_value());
  if (options.sequencer) sequencer_.emplace(*options.sequencer);
}

StageLoop::~StageLoop() {
  if (!is_cut()) cut();
}

graph::Sequencer& StageLoop::sequencer() {
  CHECK(sequencer_.has_value());
  return *sequencer_;
}

void StageLoop::link(std::unique_ptr<transport::ReceiveLink> input,
                     std::unique_ptr<transport::SendLink> output, PlanEpoch epoch) {
  CHECK(is_cut());
  input_ = std::move(input);
  output_ = std::move(output);
  epoch_ = epoch;
  draining_ = false;
  fenced_at_.reset();
  looked_ = clock_.now();
  broken_by_.reset();
  watch(waiter_, *input_);
  watch(waiter_, *output_);
}

void StageLoop::fence() {
  held_ = options_.work.is_first;
  work_.note_fence();
  if (at_work()) begin_draining();
  if (input_) fenced_at_ = clock_.now();
}

void StageLoop::resume(std::span<const graph::StageHoldings> stages) {
  CHECK(held_);
  held_ = false;
  if (std::exchange(is_new_, false))
    sequencer().adopt(stages, clock_.now());
  else
    sequencer().repair(stages);
}

void StageLoop::cut() {
  waiter_.remove(input_->event_fd());
  waiter_.remove(output_->event_fd());
  refused_ = num_refused();
  frame_.reset();
  taken_.reset();
  slot_.reset();
  credit_from_.reset();
  credit_until_.reset();
  input_.reset();
  output_.reset();
  draining_ = false;
}

std::unique_ptr<transport::ReceivedFrame> StageLoop::receive() {
  std::unique_ptr<transport::ReceivedFrame> frame = input_->try_receive();
  if (!frame) return nullptr;
  if (fenced_at_) fenced_at_ = clock_.now();
  pass(transport::FaultPoint::after_receive);
  stale_ += frame->epoch() != epoch_;
  return frame;
}

void StageLoop::pass(transport::FaultPoint point) {
  if (options_.work.fault != nullptr) options_.work.fault->pass(point);
}

/// A link that has ended, or is about to, though nobody here asked for that.
void StageLoop::look_at_links() {
  if (draining_) return;
  const auto ended = [&](const auto& link, const char* which) {
    if (link.state() == transport::LinkState::open) return false;
    if (broken_by_) return true;
    // Whatever it was of, a damaged frame among them: the rank itself is well.
    const bool failed = link.state() == transport::LinkState::failed;
    broken_by_ = make_error(ErrorCode::disconnected, "{} link: {}", which,
                            failed ? link.error().message : "the other end closed it");
    return true;
  };
  const bool input_ended = ended(*input_, "input");
  const bool output_ended = ended(*output_, "output");
  if (input_ended || output_ended) begin_draining();
}

void StageLoop::begin_draining() {
  draining_ = true;
  held_ = options_.work.is_first;
  if (!options_.work.is_first) return;
  slot_.reset();
  output_->close();
}

/// Whether what is made here still gets anywhere.
bool StageLoop::leads_on() const { return output_->state() == transport::LinkState::open; }

/// Whether anything may come.
bool StageLoop::has_input() const {
  if (has_ended(*input_)) return false;
  return !fenced_at_ || clock_.now() < *fenced_at_ + kSilentInputMax;
}

bool StageLoop::end_draining() {
  if (frame_ || taken_ || has_input()) return false;
  if (leads_on()) {
    slot_.reset();
    output_->close();
  }
  if (!has_ended(*output_)) return false;
  cut();
  return true;
}

Result<bool> StageLoop::step() {
  if (is_cut()) return end_overdue();
  bool moved = input_->progress();
  moved |= output_->progress();
  looked_ = clock_.now();
  look_at_links();
  if (options_.work.is_first) {
    ASSIGN_OR_RETURN(const bool took, take_result());
    moved |= end_overdue();
    if (!held_) {
      ASSIGN_OR_RETURN(const bool ran, run_scheduled());
      moved |= ran;
    }
    moved |= took;
    taken_.reset();
  } else {
    ASSIGN_OR_RETURN(const bool ran, run_received());
    moved |= ran;
  }
  if (draining_ && !moved) moved = end_draining();
  clock_.charge(StepPart::transfer);
  return moved;
}

/// Whether a step may start; with input there, waiting for a slot is noted for the step's event.
bool StageLoop::has_slot(bool has_input) {
  if (draining_ && !leads_on()) return true;
  if (!slot_) {
    slot_ = output_->try_acquire();
    if (slot_ && credit_from_) credit_until_ = clock_.now();
    if (!slot_ && has_input && !credit_from_) credit_from_ = clock_.now();
  }
  return slot_ != nullptr;
}

Result<bool> StageLoop::take_result() {
  taken_ = receive();
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
  if (!sequencer_) return false;
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
  if (!frame_) frame_ = receive();
  if (!frame_ || !has_slot(true)) return false;
  const std::unique_ptr<transport::ReceivedFrame> frame = std::move(frame_);
  if (frame->kind() != transport::FrameKind::activation)
    return make_error(ErrorCode::internal, "the input edge carried a frame that is no activation");
  ASSIGN_OR_RETURN(
      const graph::Microbatch microbatch,
      from_peer(graph::decode_microbatch(frame->metadata(), executor_.limits()), "previous"));
  RETURN_IF_ERROR(
      run(microbatch, as_floats(frame->payload()), frame->metadata(), frame->received_at()));
  return true;
}

/// Where the rows of the microbatch are written.
std::span<float> StageLoop::room_for(const graph::Microbatch& microbatch) {
  if (options_.work.is_last) return {};
  const auto num_floats =
      static_cast<size_t>(microbatch.num_tokens()) * static_cast<size_t>(executor_.hidden_size());
  if (!slot_) {
    nowhere_.resize(std::max(nowhere_.size(), num_floats));
    return nowhere_;
  }
  const std::span<std::byte> payload = slot_->payload();
  CHECK_LE(num_floats * sizeof(float), payload.size());
  return {reinterpret_cast<float*>(payload.data()), num_floats};
}

Status StageLoop::run(const graph::Microbatch& microbatch, std::span<const float> input,
                      std::span<std::byte> metadata, TimePoint received) {
  result_.id = microbatch.id;
  result_.slowest = microbatch.slowest;
  result_.slowest_stage = microbatch.slowest_stage;
  result_.tokens.clear();
  result_.scores.clear();
  clock_.charge(StepPart::transfer);
  StepEvent event{.microbatch = microbatch.id,
                  .lane = options_.work.lane,
                  .num_tokens = microbatch.num_tokens(),
                  .received = received,
                  .compute_from = clock_.last()};
  const std::optional<TimePoint> credit_from = std::exchange(credit_from_, {});
  const std::optional<TimePoint> credit_until = std::exchange(credit_until_, {});
  const bool waited = credit_until && *credit_until > received;
  event.credit_from = waited ? std::max(*credit_from, received) : event.compute_from;
  event.credit_until = waited ? *credit_until : event.compute_from;
  ASSIGN_OR_RETURN(const int64_t num_floats,
                   work_.run(microbatch, input, room_for(microbatch), result_));
  if (options_.work.fault != nullptr)
    options_.work.fault->stretch(clock_.now() - event.compute_from);
  const Duration spent = clock_.charge(StepPart::compute);
  event.compute_until = clock_.last();
  send(microbatch.id, metadata, num_floats, spent);
  clock_.charge(StepPart::transfer);
  event.sent = clock_.last();
  if (microbatch.canary) return ok_status();
  if (options_.trace) options_.trace->record(event);
  if (options_.account != nullptr && microbatch.stages.contains(options_.work.stage))
    options_.account->add(work_of(microbatch), spent);
  ++steps_;
  tokens_ += static_cast<uint64_t>(microbatch.num_tokens());
  return ok_status();
}

/// To the stage after, or what the last stage made to the first. What no link takes is void: a link
/// that fails between two looks at it says so with the next.
void StageLoop::send(MicrobatchId microbatch, std::span<std::byte> metadata, int64_t num_floats,
                     Duration spent) {
  if (!slot_) return;
  transport::FrameKind kind = transport::FrameKind::activation;
  if (options_.work.is_last) {
    metadata_.clear();
    encode(result_, metadata_);
    metadata = metadata_;
    kind = transport::FrameKind::result;
  }
  graph::note_step_time(metadata, spent, options_.work.stage);
  pass(transport::FaultPoint::before_send);
  const Status sent = output_->send(std::move(slot_), kind, microbatch, metadata,
                                    num_floats * int64_t{sizeof(float)});
  if (!sent.ok()) CHECK(sent.error().code == ErrorCode::disconnected);
}

StepPart StageLoop::waiting_for() const {
  const bool is_idle =
      sequencer_ ? sequencer_->idle() : !frame_ && executor_.sequences().num_sequences() == 0;
  if (is_idle || is_cut()) return StepPart::idle;
  const bool could_run = sequencer_ ? !slot_ : frame_ != nullptr;
  return could_run ? StepPart::wait_credit : StepPart::wait_input;
}

std::optional<TimePoint> StageLoop::next_deadline() const {
  return sequencer_ ? sequencer_->next_deadline() : std::nullopt;
}

void StageLoop::close() {
  if (is_cut()) return;
  frame_.reset();
  taken_.reset();
  slot_.reset();
  input_->close();
  output_->close();
}

void StageLoop::drain() {
  while (input_ && input_->try_receive()) continue;
}

bool StageLoop::closed() const { return is_cut() || (has_ended(*input_) && has_ended(*output_)); }

uint64_t StageLoop::num_refused() const {
  return refused_ + input_stats().refused_frames + output_stats().refused_frames;
}

transport::LinkStats StageLoop::input_stats() const {
  return input_ ? input_->stats() : transport::LinkStats{};
}

transport::LinkStats StageLoop::output_stats() const {
  return output_ ? output_->stats() : transport::LinkStats{};
}

}  // namespace chainpump::actors
