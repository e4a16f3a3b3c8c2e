#include "cli/under_way.h"

namespace chainpump::cli {

UnderWay::Member::Member(UnderWay& all, gateway::Generating& generating)
    : all_(all), generating_(generating) {
  const std::lock_guard lock(all_.mutex_);
  all_.generating_.insert(&generating_);
  if (all_.error_) generating_.cancel();
}

UnderWay::Member::~Member() {
  const std::lock_guard lock(all_.mutex_);
  all_.generating_.erase(&generating_);
}

void UnderWay::stop(const Error& error) {
  const std::lock_guard lock(mutex_);
  if (error_) return;
  error_ = error;
  for (gateway::Generating* generating : generating_) generating->cancel();
  stopped_.notify_all();
}

std::optional<Error> UnderWay::error() {
  const std::lock_guard lock(mutex_);
  return error_;
}

bool UnderWay::is_stopped_within(Duration duration) {
  std::unique_lock lock(mutex_);
  return stopped_.wait_for(lock, duration, [this] { return error_.has_value(); });
}

}  // namespace chainpump::cli
