#include "actors/lanes.h"

#include <atomic>
#include <memory>

#include "actors/outcome.h"
#include "actors/sequencer_options.h"

namespace chainpump::actors {
namespace {

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

Lanes::Lanes(const graph::Plan& plan, const std::vector<std::shared_ptr<RankPort>>& firsts,
             std::shared_ptr<Outcome> outcome)
    : outcome_(std::move(outcome)), router_(router_options(plan, firsts.size())) {
  for (const std::shared_ptr<RankPort>& first : firsts) {
    const graph::LaneId id(static_cast<uint8_t>(lanes_.size()));
    router_.set_state(id, graph::LaneState::serving);
    lanes_.push_back(std::make_shared<Lane>(id, first, outcome_));
  }
}

LaneEvents Lanes::events_of(graph::LaneId lane) {
  if (lanes_.size() == 1) return {};  // there is no choice
  return {.on_stats =
              [weak = weak_from_this(), lane](const rpc::LaneStats& stats) {
                const auto self = weak.lock();
                if (!self) return;
                const std::lock_guard lock(self->mutex_);
                self->router_.on_stats(lane, from_wire(stats));
              },
          .on_lost =
              [weak = weak_from_this(), lane] {
                const auto self = weak.lock();
                if (!self) return;
                const std::lock_guard lock(self->mutex_);
                self->router_.set_state(lane, graph::LaneState::dead);
              }};
}

void Lanes::open() {
  for (size_t i = 0; i < lanes_.size(); ++i)
    lanes_[i]->open(events_of(graph::LaneId(static_cast<uint8_t>(i))));
}

Result<graph::LaneId> Lanes::choose(RequestId id, const SequenceRequest& request) {
  if (lanes_.size() == 1) return graph::LaneId(0);
  const std::lock_guard lock(mutex_);
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
  if (lanes_.size() > 1) forget_at_end(id, callbacks);
  lanes_[lane->value]->submit(id, std::move(request), timeout, std::move(callbacks));
}

void Lanes::cancel(RequestId id) {
  std::optional<graph::LaneId> lane = graph::LaneId(0);
  if (lanes_.size() > 1) {
    const std::lock_guard lock(mutex_);
    lane = router_.lane_of(id);
  }
  if (lane) lanes_[lane->value]->cancel(id);
}

void Lanes::close() {
  for (const auto& lane : lanes_) lane->close();
}

}  // namespace chainpump::actors
