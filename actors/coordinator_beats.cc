#include "actors/coordinator_beats.h"

#include <utility>

namespace chainpump::actors {

bool CoordinatorBeats::on_asked(transport::rpc::Reply<Ok> reply, TimePoint now) {
  const std::lock_guard lock(mutex_);
  if (writing_since_ && now - *writing_since_ < kWriteMax) {
    reply(Ok{});
    return false;
  }
  waiting_.push_back(std::move(reply));
  return waiting_.size() == 1;  // else it has been told already
}

void CoordinatorBeats::answer_all() {
  const std::lock_guard lock(mutex_);
  for (transport::rpc::Reply<Ok>& reply : std::exchange(waiting_, {})) reply(Ok{});
}

void CoordinatorBeats::set_writing(std::optional<TimePoint> since) {
  const std::lock_guard lock(mutex_);
  writing_since_ = since;
}

CoordinatorBeats::Writing::Writing(CoordinatorBeats* beats, TimePoint now) : beats_(beats) {
  if (!beats_) return;
  beats_->set_writing(now);
  beats_->answer_all();
}

CoordinatorBeats::Writing::~Writing() {
  if (beats_) beats_->set_writing(std::nullopt);
}

}  // namespace chainpump::actors
