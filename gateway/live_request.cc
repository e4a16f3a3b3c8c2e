#include "gateway/live_request.h"

#include <utility>

namespace chainpump::gateway {
namespace {

constexpr Duration kEndMax = std::chrono::seconds(1);
// So that the engine's own deadline, whose words name no limit of the client's, comes second.
constexpr Duration kEngineLate = std::chrono::seconds(5);

}  // namespace

LiveRequest::LiveRequest(Surroundings surroundings, RequestId id, Duration deadline, Wake wake)
    : surroundings_(std::move(surroundings)),
      admitted_(surroundings_.clock.now()),
      id_(id),
      deadline_(deadline),
      wake_(std::move(wake)) {}

actors::SequenceCallbacks LiveRequest::callbacks_of(size_t choice) {
  return {.on_token =
              [self = shared_from_this(), choice](const graph::TokenResult& token) {
                self->receive(
                    [&] { return self->on_token(choice, token, self->surroundings_.clock.now()); });
              },
          .on_score =
              [self = shared_from_this()](const graph::ScoreResult& score) {
                self->receive([&] { return self->on_score(score); });
              },
          .on_end = [self = shared_from_this(),
                     choice](Result<Ok> end) { self->on_sequence_end(choice, std::move(end)); }};
}

void LiveRequest::submit(std::vector<actors::SequenceRequest> requests,
                         std::vector<Permit> permits) {
  surroundings_.tally->on_admitted();
  for (const actors::SequenceRequest& request : requests)
    for (int32_t i = 0; i < request.num_sequences; ++i) {
      permits_.emplace(request.sequence_index + static_cast<size_t>(i), std::move(permits.back()));
      permits.pop_back();
    }
  for (actors::SequenceRequest& request : requests) {
    std::vector<actors::SequenceCallbacks> callbacks;
    for (int32_t i = 0; i < request.num_sequences; ++i)
      callbacks.push_back(callbacks_of(request.sequence_index + static_cast<size_t>(i)));
    const RequestId engine_id = surroundings_.engine.submit(
        std::move(request), deadline_ + kEngineLate, std::move(callbacks));
    const std::lock_guard lock(mutex_);
    engine_ids_.push_back(engine_id);
  }
  std::vector<RequestId> to_cancel;
  bool wakes = false;
  {
    const std::lock_guard lock(mutex_);
    if (error_) to_cancel = ids_in_engine();
    if (requests.empty()) {
      set_end(Ok{});
      wakes = to_be_woken();
    }
  }
  cancel_in_engine(to_cancel);
  if (wakes) wake_();
}

template <typename F>
void LiveRequest::receive(F&& take_in) {
  bool wakes = false;
  std::vector<RequestId> to_cancel;
  {
    const std::lock_guard lock(mutex_);
    if (end_ || error_) return;
    const bool news = take_in();
    if (error_) to_cancel = ids_in_engine();  // it was one too many
    wakes = news && to_be_woken();
  }
  cancel_in_engine(to_cancel);
  if (wakes) wake_();
}

void LiveRequest::set_error(Error error) {
  error_ = std::move(error);
  ending_since_ = surroundings_.clock.now();
}

std::vector<RequestId> LiveRequest::ids_in_engine() const {
  return permits_.empty() ? std::vector<RequestId>() : engine_ids_;
}

std::vector<RequestId> LiveRequest::begin_end(Error error) {
  if (end_ || error_) return {};
  set_error(std::move(error));
  return ids_in_engine();
}

void LiveRequest::cancel_in_engine(const std::vector<RequestId>& ids) {
  for (const RequestId id : ids) surroundings_.engine.cancel(id);
}

void LiveRequest::set_end(Result<Ok> end) {
  if (end_) return;
  surroundings_.tally->on_ended(end);
  end_ = std::move(end);
}

void LiveRequest::on_sequence_end(size_t choice, Result<Ok> end) {
  bool wakes = false;
  std::vector<RequestId> to_cancel;
  {
    const std::lock_guard lock(mutex_);
    permits_.erase(choice);
    if (!end.ok()) to_cancel = begin_end(end.error());
    if (permits_.empty()) {
      set_end(error_ ? Result<Ok>(*error_) : Result<Ok>(Ok{}));
      wakes = to_be_woken();
    }
  }
  cancel_in_engine(to_cancel);
  if (wakes) wake_();
}

void LiveRequest::cancel() {
  std::vector<RequestId> to_cancel;
  {
    const std::lock_guard lock(mutex_);
    to_cancel = begin_end(make_error(ErrorCode::cancelled, "the request was cancelled"));
  }
  cancel_in_engine(to_cancel);
}

void LiveRequest::expire() {
  bool wakes = false;
  std::vector<RequestId> to_cancel;
  {
    const std::lock_guard lock(mutex_);
    if (end_) return;
    const TimePoint now = surroundings_.clock.now();
    if (now - admitted_ >= deadline_)
      to_cancel = begin_end(make_error(ErrorCode::deadline_exceeded,
                                       "the request's deadline of {:.3g} s has passed",
                                       to_seconds(deadline_)));
    if (ending_since_ && now - *ending_since_ >= kEndMax) {
      set_end(make_error(error_->code, "{}; no stage said so", error_->message));
      wakes = to_be_woken();
    }
  }
  cancel_in_engine(to_cancel);
  if (wakes) wake_();
}

void LiveRequest::abandon(const Error& error) {
  bool wakes = false;
  {
    const std::lock_guard lock(mutex_);
    if (end_) return;
    set_end(error_ ? *error_ : error);
    wakes = to_be_woken();
  }
  if (wakes) wake_();
}

}  // namespace chainpump::gateway
