#include "gateway/tally.h"

namespace chainpump::gateway {
namespace {

int64_t second_of(TimePoint time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time.since_epoch).count();
}

}  // namespace

void Tally::on_admitted() {
  const std::lock_guard lock(mutex_);
  ++num_live_;
}

void Tally::on_refused() {
  const std::lock_guard lock(mutex_);
  ++num_refused_;
}

void Tally::on_ended(const Result<Ok>& end) {
  const std::lock_guard lock(mutex_);
  --num_live_;
  if (end.ok())
    ++num_completed_;
  else if (end.error().code == ErrorCode::cancelled)
    ++num_cancelled_;
  else
    ++num_failed_;
}

void Tally::on_token(TimePoint now) {
  const int64_t index = second_of(now);
  const std::lock_guard lock(mutex_);
  ++num_tokens_;
  Second& second = seconds_[static_cast<size_t>(index) % seconds_.size()];
  if (second.index != index) second = {.index = index, .num_tokens = 0};
  ++second.num_tokens;
}

int32_t Tally::num_live() const {
  const std::lock_guard lock(mutex_);
  return num_live_;
}

void Tally::fill(StatusReport& report, TimePoint now) const {
  const int64_t current = second_of(now);
  const std::lock_guard lock(mutex_);
  report.num_requests = num_live_;
  report.num_completed = num_completed_;
  report.num_failed = num_failed_;
  report.num_cancelled = num_cancelled_;
  report.num_refused = num_refused_;
  report.num_tokens = num_tokens_;
  uint64_t lately = 0;
  for (const Second& second : seconds_)
    if (second.index < current && second.index >= current - kRateSeconds)
      lately += second.num_tokens;
  report.tokens_per_second = static_cast<double>(lately) / kRateSeconds;
}

}  // namespace chainpump::gateway
