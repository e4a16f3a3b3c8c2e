#include "actors/lane.h"

#include <algorithm>
#include <utility>

#include "actors/callback_scope.h"
#include "actors/outcome.h"
#include "base/random_bits.h"

namespace chainpump::actors {
namespace {

constexpr Duration kAttachDeadline = std::chrono::minutes(1);   // a long step may be under way
constexpr Duration kTimeoutMax = std::chrono::hours(24 * 365);  // no sum overflows

Error stopped() { return make_error(ErrorCode::cancelled, "the deployment was stopped"); }

}  // namespace

Lane::Lane(LaneOptions options, std::shared_ptr<Outcome> outcome, LaneEvents events,
           const Clock& clock)
    : options_(options), outcome_(std::move(outcome)), events_(std::move(events)), clock_(clock) {}

template <typename What>
void Lane::on_connection(uint64_t connection, What what) {
  turn_.run([this, connection, what = std::move(what)]() mutable {
    {
      const std::lock_guard lock(mutex_);
      if (connection != connection_) return;
    }
    what();
  });
}

void Lane::reopen(std::shared_ptr<RankPort> first, PlanEpoch since) {
  turn_.run([this, first = std::move(first), since] {
    std::shared_ptr<RankPort> before;
    std::vector<End> ends;
    {
      const std::lock_guard lock(mutex_);
      if (closed_ || since < since_ || (since == since_ && port_)) return;
      since_ = since;
      ++connection_;
      before = std::move(port_);
      ends = leave();
    }
    if (before && events_.on_away) events_.on_away();
    tell(ends);
    before.reset();
    open(first);
  });
}

/// Nobody else uses the port before it is attached. What it answers meanwhile comes after this.
void Lane::open(std::shared_ptr<RankPort> first) {
  const uint64_t connection = connection_;  // changes in turn only
  const auto lose_if_failed = [weak = weak_from_this(), connection](const Result<Ok>& how) {
    if (how.ok()) return;
    if (const auto self = weak.lock())
      self->on_connection(connection, [self = self.get(), why = how.error()] { self->lose(why); });
  };
  first->attach(
      options_.id,
      [weak = weak_from_this(), connection](rpc::LaneResults results) {
        if (const auto self = weak.lock())
          self->on_connection(connection, [self = self.get(), results = std::move(results)] {
            self->take(results);
          });
      },
      kAttachDeadline, lose_if_failed);
  // Comes when the rank breaks down, and when the connection does. Links are repaired behind it.
  first->watch(false, lose_if_failed);
  std::vector<End> ends;
  Batches batches;
  {
    const std::lock_guard lock(mutex_);
    ends = due();
    batches = batches_of_kept();
    port_ = first;
  }
  if (events_.on_open) events_.on_open();
  tell(ends);
  for (auto& batch : batches) give(*first, connection, std::move(batch));
}

void Lane::submit(RequestId id, SequenceRequest request, Duration timeout,
                  std::vector<SequenceCallbacks> callbacks) {
  const TimePoint now = clock_.now();
  const auto asked = std::make_shared<const LaneRequest>(
      LaneRequest{.id = id,
                  .identity = random_bits(),
                  .what = std::move(request),
                  .deadline = now + std::clamp(timeout, Duration(1), kTimeoutMax)});
  Status taken = ok_status();
  std::shared_ptr<RankPort> port;
  uint64_t connection = 0;
  uint64_t wire_id = 0;
  {
    const std::lock_guard lock(mutex_);
    port = port_;
    connection = connection_;
    if (!port) taken = may_wait(callbacks.size());
    if (taken.ok()) {
      wire_id = ++last_wire_id_;
      uint32_t index = asked->what.sequence_index;
      for (SequenceCallbacks& sequence : callbacks) {
        const auto delivery = std::make_shared<LaneDelivery>(asked, index, std::move(sequence));
        delivery->given = port != nullptr;
        deliveries_.emplace(Key(wire_id, index++), delivery);
      }
      if (!port) wake_at(asked->deadline);
    }
  }
  if (!taken.ok()) {
    for (const SequenceCallbacks& sequence : callbacks)
      sequence.on_end(outcome_->with_reason(taken.error()));
    return;
  }
  if (!port) return;
  give(*port, connection, {asked->wire(wire_id, now)});
  release(std::move(port));
}

/// The end of a port may wait for a callback, which the caller of submit() must not.
void Lane::release(std::shared_ptr<RankPort> port) {
  const std::lock_guard lock(mutex_);
  if (port == port_) return port.reset();  // not the last
  retired_.push_back(std::move(port));
  wake_at(clock_.now());
}

Status Lane::may_wait(size_t num_sequences) const {
  if (closed_) return stopped();
  if (std::optional<Error> why = outcome_->why_ended()) return *std::move(why);
  if (deliveries_.size() + num_sequences > static_cast<size_t>(options_.max_waiting))
    return make_error(ErrorCode::overloaded,
                      "the first stage of lane {} is being replaced and {} sequences wait for it; "
                      "retry after 1 s",
                      options_.id, deliveries_.size());
  return ok_status();
}

void Lane::give(RankPort& port, uint64_t connection, std::vector<rpc::GenerateRequest> requests) {
  std::vector<uint64_t> wire_ids;
  Duration patience(0);  // who has less, the rank ends
  for (const rpc::GenerateRequest& request : requests) {
    wire_ids.push_back(request.request_id);
    patience = std::max(patience, Duration(request.timeout_ns));
  }
  port.submit(options_.id, std::move(requests), patience,
              [weak = weak_from_this(), connection, wire_ids](const Result<Ok>& taken) {
                if (taken.ok()) return;
                if (const auto self = weak.lock())
                  self->on_connection(connection,
                                      [self = self.get(), wire_ids, why = taken.error()] {
                                        self->refused(wire_ids, why);
                                      });
              });
  pass_cancels_again(wire_ids);
}

/// What was cancelled meanwhile: the rank may have been told before it was given them.
void Lane::pass_cancels_again(const std::vector<uint64_t>& wire_ids) {
  const std::lock_guard lock(mutex_);
  bool found = false;
  for (const uint64_t id : wire_ids)
    for (auto it = deliveries_.lower_bound({id, 0});
         it != deliveries_.end() && it->first.first == id; ++it)
      found |= std::exchange(it->second->cancel_passed, false);
  if (found) wake_at(clock_.now());
}

void Lane::cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  bool found = false;
  for (const auto& [key, delivery] : deliveries_)
    if (delivery->request()->id == id) found = delivery->cancelled = true;
  if (found) wake_at(clock_.now());
}

void Lane::deployment_ended() {
  const std::lock_guard lock(mutex_);
  wake_at(clock_.now());
}

void Lane::wake_at(TimePoint when) {
  if (wake_due_ && *wake_due_ <= when) return;
  wake_due_ = when;
  if (events_.wake_at) events_.wake_at(when);
}

void Lane::on_time() {
  turn_.run([this] {
    std::shared_ptr<RankPort> port;
    std::vector<std::shared_ptr<RankPort>> retired;
    std::vector<uint64_t> cancelled;
    std::vector<End> ends;
    {
      const std::lock_guard lock(mutex_);
      wake_due_.reset();
      retired.swap(retired_);
      port = port_;
      if (port)
        cancelled = to_cancel();
      else
        ends = due();
    }
    if (!cancelled.empty())
      port->cancel(options_.id, std::move(cancelled), kLaneControlDeadline,
                   [](const Result<Ok>&) {});
    tell(ends);
  });
}

void Lane::close() {
  turn_.run_and_wait([this] {
    std::shared_ptr<RankPort> port;
    std::vector<End> ends;
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
      ++connection_;
      port = std::move(port_);
      ends = leave();
      for (End& end : take_all(stopped())) ends.push_back(std::move(end));
    }
    port.reset();
    tell(ends);
  });
}

void Lane::lose(const Error& why) {
  std::shared_ptr<RankPort> port;
  std::vector<End> ends;
  {
    const std::lock_guard lock(mutex_);
    ++connection_;
    port = std::move(port_);
    lost_by_ = ": " + why.message;
    ends = leave();
    for (End& end : due()) ends.push_back(std::move(end));
  }
  if (events_.on_away) events_.on_away();
  tell(ends);
}

// Whoever cannot serve says so to every call; what is wrong with a request is that one's end.
void Lane::refused(const std::vector<uint64_t>& wire_ids, const Error& why) {
  if (why.code != ErrorCode::deadline_exceeded && why.code != ErrorCode::overloaded)
    return lose(why);
  std::vector<End> ends;
  {
    const std::lock_guard lock(mutex_);
    for (const uint64_t id : wire_ids) {
      const auto first = deliveries_.lower_bound({id, 0});
      const auto last = deliveries_.lower_bound({id + 1, 0});
      for (auto it = first; it != last; ++it) ends.push_back({std::move(it->second), why});
      deliveries_.erase(first, last);
    }
  }
  tell(ends);
}

void Lane::take(const rpc::LaneResults& results) {
  take_each(results.tokens);
  take_each(results.scores);
  std::optional<Error> lost_by;
  std::vector<End> ends;
  {
    const std::lock_guard lock(mutex_);
    for (const rpc::RequestEnd& end : results.ends) {
      // Not the request's, but the rank's, which has lost its lane.
      if (!end.how.ok() && end.how.error().code == ErrorCode::disconnected) {
        lost_by = end.how.error();
        continue;
      }
      const auto found = deliveries_.find({end.request_id, end.sequence_index});
      if (found == deliveries_.end()) continue;
      ends.push_back({std::move(found->second), end.how});
      deliveries_.erase(found);
    }
  }
  for (End& end : ends) end.how = end.delivery->checked(std::move(end.how));
  tell(ends);
  if (events_.on_stats) {
    rpc::LaneStats stats = results.stats;
    stats.num_taken -= std::min(stats.num_taken, num_again_);
    events_.on_stats(stats);
  }
  if (lost_by) lose(*lost_by);
}

template <typename Token>
void Lane::take_each(const std::vector<Token>& results) {
  const CallbackScope scope;
  for (const Token& result : results) {
    std::shared_ptr<LaneDelivery> delivery;
    {
      const std::lock_guard lock(mutex_);
      const auto found = deliveries_.find({result.request_id, result.sequence_index});
      if (found != deliveries_.end()) delivery = found->second;
    }
    if (delivery) delivery->take(result);
  }
}

void Lane::tell(const std::vector<End>& ends) {
  const CallbackScope scope;
  for (const End& end : ends) end.delivery->tell_end(outcome_->with_reason(end.how));
}

/// Of what there is nothing more to come. The rest waits for another rank.
std::vector<Lane::End> Lane::leave() {
  std::vector<End> ends;
  std::erase_if(deliveries_, [&](auto& entry) {
    LaneDelivery& delivery = *entry.second;
    delivery.cancel_passed = false;
    if (!delivery.is_over()) return false;
    ends.push_back({std::move(entry.second), delivery.checked(Ok{})});
    return true;
  });
  return ends;
}

/// In a lane that is away.
std::vector<Lane::End> Lane::due() {
  if (std::optional<Error> why = outcome_->why_ended()) return take_all(*why);
  const TimePoint now = clock_.now();
  std::vector<End> ends;
  std::optional<TimePoint> next;
  std::erase_if(deliveries_, [&](auto& entry) {
    const LaneDelivery& delivery = *entry.second;
    const TimePoint deadline = delivery.request()->deadline;
    std::optional<Error> why;
    if (delivery.cancelled)
      why = make_error(ErrorCode::cancelled, "the request was cancelled");
    else if (deadline <= now)
      why = make_error(ErrorCode::deadline_exceeded,
                       "the time was up before lane {} had another first stage{}", options_.id,
                       lost_by_);
    else if (!next || deadline < *next)
      next = deadline;
    if (why) ends.push_back({std::move(entry.second), *std::move(why)});
    return why.has_value();
  });
  if (next) wake_at(*next);
  return ends;
}

std::vector<Lane::End> Lane::take_all(const Error& why) {
  std::vector<End> ends;
  for (auto& [key, delivery] : deliveries_) ends.push_back({std::move(delivery), why});
  deliveries_.clear();
  return ends;
}

std::vector<uint64_t> Lane::to_cancel() {
  std::vector<uint64_t> wire_ids;
  for (const auto& [key, delivery] : deliveries_) {
    if (!delivery->cancelled || std::exchange(delivery->cancel_passed, true)) continue;
    if (wire_ids.empty() || wire_ids.back() != key.first) wire_ids.push_back(key.first);
  }
  return wire_ids;
}

}  // namespace chainpump::actors
