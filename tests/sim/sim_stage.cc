#include "tests/sim/sim_stage.h"

#include <algorithm>

namespace chainpump::sim {

using graph::LaneId;

SimStage::SimStage(StageHost& host, LaneId lane, int stage)
    : host_(host),
      world_(host.world),
      lane_(lane),
      stage_(stage),
      name_(fmt::format("{}, lane {} stage {}", host.name, lane, stage)),
      memory_(host.world, host.scenario, host.table, name_, lane, stage),
      epoch_(host.scenario.plan.epoch) {
  if (is_first())
    front_ = std::make_unique<SimFront>(host.world, host.scenario, lane, host.awake, host.wake);
}

// -------------------------------------------------------------------------------- asked

void SimStage::connect(PlanEpoch epoch, Reply<Ok> reply) {
  if (epoch < epoch_)
    return reply(
        make_error(ErrorCode::invalid_argument, "epoch {} is over, it is {}", epoch, epoch_));
  if (state_ != State::cut)
    return reply(make_error(ErrorCode::invalid_argument, "has links already"));
  const PlanEpoch at_first = host_.scenario.plan.epoch;
  if (is_first() && !was_linked_ && epoch > at_first) {
    awaited_ = held_ = true;
    front_->set_new();
  }
  epoch_ = epoch;
  was_linked_ = true;
  state_ = State::opening;
  opened_ = std::move(reply);
  run_ = host_.hub.run(lane_, epoch);
  run_->stages[static_cast<size_t>(stage_)] = this;
  const int edge_in = is_first() ? host_.scenario.num_stages() - 1 : stage_ - 1;
  host_.hub.offer(lane_, stage_, epoch, end_of(epoch),
                  [this, epoch](auto link) { on_open(epoch, true, std::move(link)); });
  host_.hub.accept(lane_, edge_in, epoch, end_of(epoch),
                   [this, epoch](auto link) { on_open(epoch, false, std::move(link)); });
}

/// What comes of another epoch's link is for nobody: a link calls back while it is open, and a
/// stage that was cut has closed or dropped its own.
SimLink::End SimStage::end_of(PlanEpoch epoch) {
  const auto mine = [this, epoch] {
    return epoch_ == epoch || state_ == State::draining || state_ == State::work;
  };
  return {.awake = host_.awake,
          .on_ended =
              [this, mine] {
                if (mine()) look_at_links();
              },
          .on_credit = [this] { host_.wake(); },
          .on_frame = [this](SimFrame frame) { on_frame(std::move(frame)); }};
}

void SimStage::on_open(PlanEpoch epoch, bool output, std::shared_ptr<SimLink> link) {
  if (epoch_ != epoch || state_ != State::opening)
    return output ? link->drop_output() : link->drop_input();
  (output ? out_ : in_) = std::move(link);
  if (!in_ || !out_) return;
  state_ = State::work;
  broken_ = false;
  last_run_ = 0;
  std::exchange(opened_, nullptr)(Ok{});
  look_at_links();
  host_.wake();
}

void SimStage::abandon(const Error& why) {
  if (state_ != State::opening) return;
  if (out_) out_->drop_output();
  if (in_) in_->drop_input();
  cut();
  std::exchange(opened_, nullptr)(why);
}

void SimStage::fence(PlanEpoch epoch, Reply<graph::StageHoldings> reply) {
  if (epoch <= epoch_) {
    ++world_.stale_refused;
    return reply(
        make_error(ErrorCode::invalid_argument, "epoch {} is over, it is {}", epoch, epoch_));
  }
  epoch_ = epoch;
  const Error over = make_error(ErrorCode::cancelled, "epoch {} began", epoch);
  abandon(over);
  if (fenced_) std::exchange(fenced_, nullptr)(over);
  fenced_ = std::move(reply);
  held_ = is_first();
  if (state_ == State::work) begin_draining();
  answer_fence();
}

void SimStage::answer_fence() {
  if (state_ == State::cut && fenced_) std::exchange(fenced_, nullptr)(memory_.holdings());
}

void SimStage::resume(PlanEpoch epoch, std::vector<graph::StageHoldings> stages, Reply<Ok> reply) {
  const bool again = world_.plant == Plant::resumed_again && !held_;
  if (!front_ || epoch != epoch_ || state_ != State::work || (!held_ && !again))
    return reply(make_error(ErrorCode::invalid_argument,
                            "has no open links of epoch {}, or was resumed", epoch));
  awaited_ = held_ = false;
  for (SimStage* const other : run_->stages)
    if (other != nullptr) other->memory_.set_repaired();
  front_->repair(std::move(stages));
  world_.say("{}: resumed in epoch {}", name_, epoch);
  reply(Ok{});
  host_.wake();
}

graph::LaneSeen SimStage::seen() const {
  return {.epoch = epoch_,
          .linked = was_linked_ || took_over_,
          .at_work = state_ == State::work && !held_};
}

void SimStage::take_over(const SimStage& other) {
  took_over_ = true;
  memory_.take_over(other.memory_);
}

// -------------------------------------------------------------------------------- links

void SimStage::on_frame(SimFrame frame) {
  if (!in_) return;  // planted: it came by no link of its own
  if (front_) {
    front_->take_result(frame);
    in_->release(frame);
    return host_.wake();
  }
  if (world_.plant == Plant::block_freed_in_flight) {
    graph::Microbatch microbatch =
        *graph::decode_microbatch(frame.bytes, limits_of(host_.scenario));
    memory_.release_early(microbatch);
    microbatch.released.clear();
    frame.bytes.clear();
    graph::encode(microbatch, frame.bytes);
  }
  queue_.push_back(std::move(frame));
  if (static_cast<int32_t>(queue_.size()) > host_.scenario.credits)
    world_.fail("{}: {} frames wait", name_, queue_.size());
  host_.wake();
}

void SimStage::look_at_links() {
  if (state_ == State::work && (in_->input_ended() || !out_->leads_on())) {
    broken_ = true;
    world_.say("{}: a link has ended", name_);
    begin_draining();
    host_.on_broken();
  }
  if (state_ == State::draining) drain();
  host_.wake();
}

void SimStage::begin_draining() {
  state_ = State::draining;
  held_ = is_first();
  drain();
}

/// A stage ends its output when its input has ended and nothing is left of it; the first at once,
/// so that one stage after the other does.
void SimStage::drain() {
  if (state_ != State::draining || running_) return;
  if (is_first()) out_->close();
  if (!in_->input_ended() || !queue_.empty()) return;
  out_->close();
  if (!out_->output_ended()) return;
  cut();
  answer_fence();
}

void SimStage::cut() {
  state_ = State::cut;
  in_.reset();
  out_.reset();
  queue_.clear();
  if (run_ && run_->stages[static_cast<size_t>(stage_)] == this)
    run_->stages[static_cast<size_t>(stage_)] = nullptr;
}

void SimStage::drop_links() {
  if (out_) out_->drop_output();
  if (in_) in_->drop_input();
  cut();
}

// -------------------------------------------------------------------------------- steps

std::optional<SimFrame> SimStage::next_frame() {
  if (!is_first()) {
    if (queue_.empty()) return std::nullopt;
    SimFrame frame = std::move(queue_.front());
    queue_.pop_front();
    return frame;
  }
  if (state_ != State::work || held_) return std::nullopt;
  std::vector<const StageMemory*> stages;
  for (const SimStage* const stage : run_->stages)
    stages.push_back(stage == nullptr ? nullptr : &stage->memory_);
  return front_->form(stages);
}

bool SimStage::begin_step() {
  if (state_ != State::work && state_ != State::draining) return false;
  sends_ = out_->leads_on();
  if (sends_ && !out_->may_acquire()) return false;
  if (!sends_ && state_ == State::work) return false;
  std::optional<SimFrame> next = next_frame();
  if (!next) return false;
  SimFrame frame = std::move(*next);
  if (sends_) out_->acquire();
  Result<graph::Microbatch> microbatch =
      graph::decode_microbatch(frame.bytes, limits_of(host_.scenario));
  if (!microbatch.ok()) {
    world_.fail("{}: {}", name_, microbatch.error().message);
    return true;
  }
  if (last_run_ != 0 && microbatch->id.value != last_run_ + 1) {
    world_.fail("{}: microbatch {} after {}", name_, microbatch->id, last_run_);
    return true;
  }
  last_run_ = microbatch->id.value;
  std::optional<graph::StepResult> result = memory_.run(frame, *microbatch);
  if (!result) return true;
  memory_.compare(frame, *run_);
  const Duration spent = cost_of(*microbatch);
  world_.say("{}: microbatch {}: {} slices, {} tokens, {} us", name_, microbatch->id,
             microbatch->slices.size(), microbatch->num_tokens(), spent.count() / 1000);
  running_ = host_.busy = true;
  world_.after(spent, [this, spent, frame = std::move(frame), done = std::move(*microbatch),
                       out = std::move(*result)]() mutable {
    host_.awake([this, spent, frame = std::move(frame), done = std::move(done),
                 out = std::move(out)]() mutable {
      finish(std::move(frame), spent, done, std::move(out));
    });
  });
  return true;
}

/// a + b tokens + d attended, a fifth more or less, and now and then ten times that.
Duration SimStage::cost_of(const graph::Microbatch& microbatch) const {
  graph::StepWork work;
  for (const graph::SequenceSlice& slice : microbatch.slices)
    work.add(static_cast<int64_t>(slice.tokens.size()), slice.first_position);
  const graph::StepCost::Coefficients& c = host_.scenario.cost;
  double seconds =
      c.overhead_s + c.token_s * static_cast<double>(work.tokens) + c.attended_s * work.attended;
  seconds *= host_.slowness * world_.random.uniform(0.8, 1.2);
  if (world_.random.chance(200)) seconds *= 10;
  return Duration(1 + static_cast<int64_t>(seconds * 1e9));
}

void SimStage::finish(SimFrame frame, Duration spent, const graph::Microbatch& microbatch,
                      graph::StepResult result) {
  running_ = host_.busy = false;
  const SimFrame came = frame;
  if (is_last()) {
    result.slowest = microbatch.slowest;
    result.slowest_stage = microbatch.slowest_stage;
    frame.bytes.clear();
    graph::encode(result, frame.bytes);
  }
  graph::note_step_time(frame.bytes, spent, StageIndex(stage_));
  if (sends_) out_->send(std::move(frame));
  if (!is_first()) in_->release(came);
  drain();
  host_.wake();
}

void SimStage::check_idle() const {
  if (front_) front_->check_idle();
  if (!queue_.empty() || memory_.num_sequences() != 0)
    world_.fail("{}: {} frames and {} sequences are left", name_, queue_.size(),
                memory_.num_sequences());
}

}  // namespace chainpump::sim
