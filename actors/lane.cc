#include "actors/lane.h"

#include <optional>

#include "actors/callback_scope.h"
#include "actors/convert.h"
#include "actors/outcome.h"

namespace chainpump::actors {
namespace {

constexpr Duration kAttachDeadline = std::chrono::minutes(1);  // a long step may be under way
constexpr Duration kControlDeadline = std::chrono::seconds(5);

rpc::GenerateRequest wire_request(RequestId id, SequenceRequest request, Duration timeout) {
  rpc::GenerateRequest wire;
  wire.request_id = id.value;
  wire.sequence_index = request.sequence_index;
  wire.prompt = std::move(request.prompt);
  wire.sampling = to_wire(request.sampling);
  wire.score = {.first_position = request.score.first_position,
                .full_path = std::move(request.score.full_path)};
  wire.timeout_ns = std::max(timeout, Duration(1)).count();
  wire.num_sequences = request.num_sequences;
  wire.tenant = request.tenant.value;
  wire.cache_salt = request.cache_salt;
  wire.priority = request.priority;
  return wire;
}

}  // namespace

/// One sequence's way to its caller.
struct Lane::Delivery {
  SequenceCallbacks callbacks;
  int32_t next_position;
  bool complete;  // its last token has come; a sequence that is scored has none
  bool torn = false;

  void take(const rpc::TokenResult& token) {
    torn |= complete || token.position != next_position;
    if (torn) return;
    ++next_position;
    complete = token.finish != rpc::FinishReason::none;
    callbacks.on_token(from_wire(token));
  }
  Result<Ok> checked(Result<Ok> end) const {
    if (!end.ok() || (complete && !torn)) return end;
    return make_error(ErrorCode::internal,
                      "tokens were lost on the way from the first stage: the answer breaks off at "
                      "position {}",
                      next_position);
  }
};

Lane::Lane(graph::LaneId id, std::shared_ptr<RankPort> first, std::shared_ptr<Outcome> outcome)
    : id_(id), outcome_(std::move(outcome)), port_(std::move(first)) {}

void Lane::open(LaneEvents events) {
  events_ = std::move(events);
  const auto lose_if_failed = [weak = weak_from_this()](const Result<Ok>& how) {
    if (how.ok()) return;
    if (const auto self = weak.lock()) self->lose(how.error());
  };
  port_->attach(
      id_,
      [weak = weak_from_this()](const rpc::LaneResults& results) {
        if (const auto self = weak.lock()) self->take(results);
      },
      kAttachDeadline, lose_if_failed);
  // Comes when the rank breaks down, and when the connection does.
  port_->watch(lose_if_failed);
}

void Lane::submit(RequestId id, SequenceRequest request, Duration timeout,
                  std::vector<SequenceCallbacks> callbacks) {
  std::vector<std::shared_ptr<Delivery>> deliveries;
  for (SequenceCallbacks& sequence : callbacks)
    deliveries.push_back(std::make_shared<Delivery>(
        Delivery{.callbacks = std::move(sequence),
                 .next_position = static_cast<int32_t>(request.prompt.size()),
                 .complete = request.score.first_position >= 0}));
  std::optional<Error> lost_by;
  std::shared_ptr<RankPort> port;
  {
    const std::lock_guard lock(mutex_);
    lost_by = lost_by_;
    port = port_;
    uint32_t index = request.sequence_index;
    if (!lost_by)
      for (const auto& delivery : deliveries) deliveries_.emplace(Key(id.value, index++), delivery);
  }
  if (lost_by) {
    for (const auto& delivery : deliveries)
      delivery->callbacks.on_end(outcome_->with_reason(*lost_by));
    return;
  }
  port->submit(id_, {wire_request(id, std::move(request), timeout)}, timeout,
               [weak = weak_from_this(), id](Result<Ok> taken) {
                 if (taken.ok()) return;
                 if (const auto self = weak.lock()) self->end_request(id.value, taken.error());
               });
}

void Lane::cancel(RequestId id) {
  if (const auto to = port())
    to->cancel(id_, {id.value}, kControlDeadline, [](const Result<Ok>&) {});
}

void Lane::close() {
  std::shared_ptr<RankPort> closed;
  {
    const std::lock_guard lock(mutex_);
    if (!lost_by_) lost_by_ = make_error(ErrorCode::cancelled, "the deployment was stopped");
    closed.swap(port_);
  }
  // With its connection ends the watch, on the thread that calls back, and all that runs.
  closed.reset();
}

void Lane::take(const rpc::LaneResults& results) {
  const CallbackScope scope;
  for (const rpc::TokenResult& token : results.tokens)
    if (const auto delivery = find({token.request_id, token.sequence_index})) delivery->take(token);
  for (const rpc::ScoreResult& score : results.scores)
    if (const auto delivery = find({score.request_id, score.sequence_index}))
      delivery->callbacks.on_score(from_wire(score));
  for (const rpc::RequestEnd& request_end : results.ends)
    end({request_end.request_id, request_end.sequence_index}, request_end.how);
  if (events_.on_stats) events_.on_stats(results.stats);
}

void Lane::end_request(uint64_t id, const Error& why) {
  std::vector<Key> keys;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = deliveries_.lower_bound({id, 0}); it != deliveries_.end(); ++it) {
      if (it->first.first != id) break;
      keys.push_back(it->first);
    }
  }
  for (const Key& key : keys) end(key, why);
}

void Lane::end(Key key, Result<Ok> how) {
  std::shared_ptr<Delivery> delivery;
  {
    const std::lock_guard lock(mutex_);
    const auto found = deliveries_.find(key);
    if (found == deliveries_.end()) return;
    delivery = std::move(found->second);
    deliveries_.erase(found);
  }
  const CallbackScope scope;
  delivery->callbacks.on_end(outcome_->with_reason(delivery->checked(std::move(how))));
}

void Lane::lose(const Error& why) {
  std::map<Key, std::shared_ptr<Delivery>> ended;
  bool news = false;
  {
    const std::lock_guard lock(mutex_);
    news = !lost_by_;
    if (!lost_by_) lost_by_ = why;
    ended.swap(deliveries_);
  }
  if (news && events_.on_lost) events_.on_lost();
  const CallbackScope scope;
  for (const auto& [key, delivery] : ended) delivery->callbacks.on_end(outcome_->with_reason(why));
}

std::shared_ptr<RankPort> Lane::port() {
  const std::lock_guard lock(mutex_);
  return port_;
}

std::shared_ptr<Lane::Delivery> Lane::find(Key key) {
  const std::lock_guard lock(mutex_);
  const auto found = deliveries_.find(key);
  return found == deliveries_.end() ? nullptr : found->second;
}

}  // namespace chainpump::actors
