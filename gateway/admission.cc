#include "gateway/admission.h"

#include <algorithm>

namespace chainpump::gateway {
namespace {

constexpr Duration kWaitMin = std::chrono::milliseconds(100);
constexpr Duration kWaitMax = std::chrono::minutes(1);

}  // namespace

Permit::~Permit() {
  if (admission_) admission_->give_back(clock_->now() - since_);
}

Result<std::vector<Permit>> Admission::admit(int32_t count) {
  std::vector<Permit> permits;
  {
    const std::lock_guard lock(mutex_);
    if (count > max_live_ - num_live_)
      return make_error(ErrorCode::overloaded,
                        "{} sequences run or wait, and {} more would pass the limit of {}; retry "
                        "after {:.1f} s",
                        num_live_, count, max_live_, to_seconds(expected_wait(count)));
    num_live_ += count;
  }
  const TimePoint now = clock_.now();
  for (int32_t i = 0; i < count; ++i) permits.emplace_back(shared_from_this(), now, clock_);
  return permits;
}

int32_t Admission::num_live() const {
  const std::lock_guard lock(mutex_);
  return num_live_;
}

void Admission::set_max_live(int32_t max_live) {
  const std::lock_guard lock(mutex_);
  max_live_ = max_live;
}

void Admission::give_back(Duration held) {
  const std::lock_guard lock(mutex_);
  --num_live_;
  usual_ += (held - usual_) / 8;
}

Duration Admission::expected_wait(int32_t count) const {
  // Little's law: num_live_ of them, each here for usual_, waiting included.
  const Duration between_ends = usual_ / std::max(num_live_, 1);
  return std::clamp(between_ends * (num_live_ + count - max_live_), kWaitMin, kWaitMax);
}

}  // namespace chainpump::gateway
