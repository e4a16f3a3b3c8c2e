#include "actors/lanes.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include "actors/outcome.h"
#include "actors/sequencer_options.h"

namespace chainpump::actors {
namespace {

/// Longer than the news of a death takes: then it is the repair that makes the connection.
constexpr Duration kReconnectEvery = std::chrono::milliseconds(500);

graph::RouterOptions router_options(const graph::Plan& plan, size_t num_lanes) {
  graph::RouterOptions options{.num_lanes = static_cast<int32_t>(num_lanes),
                               .block_tokens = plan.kv.block_tokens};
  const graph::StepCost::Coefficients cost = predicted_cost(plan);
  const int32_t tokens = plan.max_microbatch_tokens;
  const double step_s = cost.overhead_s + cost.token_s * tokens;
  if (step_s > 0) options.tokens_per_s_prior = tokens / step_s;
  return options;
}

graph::LaneStats from_wire(const rpc::LaneStats& stats) {
  return {.num_taken = stats.num_taken,
          .num_free_blocks = stats.num_free_blocks,
          .queue_room = stats.queue_room,
          .waiting_tokens = stats.waiting_tokens,
          .num_running = stats.num_running,
          .tokens_per_s = stats.tokens_per_s};
}

}  // namespace

Result<std::shared_ptr<Lanes>> Lanes::create(const graph::Plan& plan,
                                             std::shared_ptr<Outcome> outcome,
                                             LanesOptions options) {
  ASSIGN_OR_RETURN(std::unique_ptr<Alarm> alarm, Alarm::create());
  options.most_lanes = std::max(options.most_lanes, static_cast<size_t>(num_lanes(plan)));
  std::shared_ptr<Lanes> lanes(
      new Lanes(plan, std::move(outcome), std::move(options), std::move(alarm)));
  for (size_t i = 0; i < lanes->options_.most_lanes; ++i) {
    const graph::LaneId id(static_cast<uint8_t>(i));
    lanes->lanes_.push_back(
        std::make_shared<Lane>(LaneOptions{.id = id, .max_waiting = plan.max_queued},
                               lanes->outcome_, lanes->events_of(id), steady_clock()));
  }
  return lanes;
}

Lanes::Lanes(const graph::Plan& plan, std::shared_ptr<Outcome> outcome, LanesOptions options,
             std::unique_ptr<Alarm> alarm)
    : outcome_(std::move(outcome)),
      options_(std::move(options)),
      num_lanes_(static_cast<size_t>(num_lanes(plan))),
      router_(router_options(plan, options_.most_lanes)),
      standings_(options_.most_lanes),
      alarm_(std::move(alarm)) {}

LaneEvents Lanes::events_of(graph::LaneId lane) {
  return {.on_open =
              [weak = weak_from_this(), lane] {
                if (const auto self = weak.lock())
                  self->change(lane, [](Standing& standing) { standing.open = true; });
              },
          .on_away =
              [weak = weak_from_this(), lane] {
                const auto self = weak.lock();
                if (!self) return;
                self->change(lane, [](Standing& standing) { standing.open = false; });
                self->reconnect_later(lane);
              },
          .on_stats =
              [weak = weak_from_this(), lane](const rpc::LaneStats& stats) {
                const auto self = weak.lock();
                if (!self) return;
                const std::lock_guard lock(self->mutex_);
                self->router_.on_stats(lane, from_wire(stats));
                if (stats.crossed_ago_ns >= 0)
                  self->outcome_->health().on_crossing(lane, PlanEpoch(stats.epoch),
                                                       Duration(stats.crossed_ago_ns));
              },
          .wake_at =
              [weak = weak_from_this(), lane](TimePoint when) {
                if (const auto self = weak.lock()) self->wake_at(lane, when);
              }};
}

template <typename Change>
void Lanes::change(graph::LaneId lane, Change change) {
  const std::lock_guard lock(mutex_);
  Standing& standing = standings_[lane.value];
  const bool served = standing.serves();
  change(standing);
  if (!standing.gone) outcome_->health().set_joined(lane, standing.open);
  router_.set_state(lane, standing.serves() ? graph::LaneState::serving
                          : standing.open   ? graph::LaneState::draining
                                            : graph::LaneState::dead);
  if (standing.serves() == served) return;
  served ? --num_serving_ : ++num_serving_;
  if (served && (num_lanes_ > 1 || standing.gone)) move_later(lane, ++standing.num_pauses);
}

void Lanes::set_size(size_t num_lanes) {
  CHECK(num_lanes > 0 && num_lanes <= lanes_.size());
  num_lanes_ = num_lanes;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const graph::LaneId lane(static_cast<uint8_t>(i));
    bool leaves = false;
    change(lane, [&](Standing& standing) {
      leaves = i >= num_lanes && !std::exchange(standing.gone, i >= num_lanes);
    });
    if (leaves) lanes_[i]->in_turn([self = shared_from_this(), lane] { self->move(lane); });
  }
}

void Lanes::set_paused(graph::LaneId lane, bool paused) {
  change(lane, [paused](Standing& standing) { standing.paused = paused; });
}

void Lanes::reconnect_later(graph::LaneId lane) {
  const std::lock_guard lock(mutex_);
  if (!alarm_ || !options_.reconnect || std::exchange(standings_[lane.value].will_reconnect, true))
    return;
  alarm_->at(steady_clock().now() + kReconnectEvery, [weak = weak_from_this(), lane] {
    if (const auto self = weak.lock()) self->reconnect_if_lost(lane);
  });
}

void Lanes::reconnect_if_lost(graph::LaneId lane) {
  {
    const std::lock_guard lock(mutex_);
    Standing& standing = standings_[lane.value];
    standing.will_reconnect = false;
    if (standing.open || standing.gone) return;
  }
  reconnect_later(lane);
  {
    const std::lock_guard lock(mutex_);
    if (standings_[lane.value].paused) return;
  }
  options_.reconnect(lane);
}

void Lanes::move_later(graph::LaneId lane, uint64_t num_pauses) {
  if (!alarm_) return;
  alarm_->at(steady_clock().now() + options_.move_after,
             [weak = weak_from_this(), lane, num_pauses] {
               if (const auto self = weak.lock()) self->move_if_it_waits(lane, num_pauses);
             });
}

void Lanes::move_if_it_waits(graph::LaneId lane, uint64_t num_pauses) {
  {
    const std::lock_guard lock(mutex_);
    const Standing& standing = standings_[lane.value];
    if (standing.serves() || standing.num_pauses != num_pauses) return;
    move_later(lane, num_pauses);  // what came while no other served
    if (num_serving_ == 0) return;
  }
  lanes_[lane.value]->in_turn([self = shared_from_this(), lane] { self->move(lane); });
}

/// In the lane's turn.
void Lanes::move(graph::LaneId lane) {
  std::vector<std::function<void()>> then(1);
  {
    const std::lock_guard lock(moving_);
    if (closed_) return;
    for (const Lane::Together& together : lanes_[lane.value]->give_up(then[0]))
      then.push_back(lanes_[choose_for(together).value]->go_on(together));
  }
  for (const auto& each : then)
    if (each) each();
}

/// One that serves, if any does; for all sequences of a request the same.
graph::LaneId Lanes::choose_for(const Lane::Together& together) {
  const LaneRequest& request = *together.front().second->request();
  const std::lock_guard lock(mutex_);
  const std::optional<graph::LaneId> now = router_.lane_of(request.id);
  if (now && standings_[now->value].serves()) return *now;
  router_.end(request.id);
  const Result<graph::Route> route = router_.route({.id = request.id,
                                                    .cache_salt = request.what.cache_salt,
                                                    .prompt = request.what.prompt,
                                                    .num_choices = request.what.num_sequences});
  if (route.ok()) return route->lane;
  const auto serves = [](const Standing& standing) { return standing.serves(); };
  const auto any = std::find_if(standings_.begin(), standings_.end(), serves);
  return graph::LaneId(
      static_cast<uint8_t>(any == standings_.end() ? 0 : any - standings_.begin()));
}

void Lanes::wake_at(graph::LaneId lane, TimePoint when) {
  const std::lock_guard lock(mutex_);
  if (!alarm_) return;
  alarm_->at(when, [weak = std::weak_ptr(lanes_[lane.value])] {
    if (const auto self = weak.lock()) self->on_time();
  });
}

void Lanes::reopen(graph::LaneId lane, std::shared_ptr<RankPort> first, PlanEpoch since) {
  lanes_[lane.value]->reopen(std::move(first), since);
}

Result<graph::LaneId> Lanes::choose(RequestId id, const SequenceRequest& request) {
  if (num_lanes_ == 1) return graph::LaneId(0);
  const std::lock_guard lock(mutex_);
  if (num_serving_ == 0) return graph::LaneId(static_cast<uint8_t>(id.value % num_lanes_));
  ASSIGN_OR_RETURN(const graph::Route route, router_.route({.id = id,
                                                            .cache_salt = request.cache_salt,
                                                            .prompt = request.prompt,
                                                            .num_choices = request.num_sequences}));
  return route.lane;
}

void Lanes::forget_at_end(RequestId id, std::vector<SequenceCallbacks>& callbacks) {
  const auto num_open = std::make_shared<std::atomic<size_t>>(callbacks.size());
  for (SequenceCallbacks& sequence : callbacks)
    sequence.on_end = [weak = weak_from_this(), id, num_open,
                       on_end = std::move(sequence.on_end)](Result<Ok> how) {
      if (const auto self = num_open->fetch_sub(1) == 1 ? weak.lock() : nullptr) {
        const std::lock_guard lock(self->mutex_);
        self->router_.end(id);
      }
      on_end(std::move(how));
    };
}

void Lanes::submit(RequestId id, SequenceRequest request, Duration timeout,
                   std::vector<SequenceCallbacks> callbacks) {
  const Result<graph::LaneId> lane = choose(id, request);
  if (!lane.ok()) {
    for (const SequenceCallbacks& sequence : callbacks)
      sequence.on_end(outcome_->with_reason(lane.error()));
    return;
  }
  forget_at_end(id, callbacks);
  lanes_[lane->value]->submit(id, std::move(request), timeout, std::move(callbacks));
}

// Only its lane knows it.
void Lanes::cancel(RequestId id) {
  const std::lock_guard lock(moving_);
  for (const auto& lane : lanes_) lane->cancel(id);
}

void Lanes::deployment_ended() {
  for (const auto& lane : lanes_) lane->deployment_ended();
}

void Lanes::close() {
  {
    const std::lock_guard lock(moving_);
    closed_ = true;
  }
  std::unique_ptr<Alarm> alarm;  // its calls may want the lock
  {
    const std::lock_guard lock(mutex_);
    alarm.swap(alarm_);
  }
  alarm.reset();
  for (const auto& lane : lanes_) lane->close();
}

}  // namespace chainpump::actors
