#include "actors/outcome.h"

#include <algorithm>
#include <utility>

#include "actors/lanes.h"

namespace chainpump::actors {
namespace {

// A stage notices its neighbour's death before the coordinator can say whose death it was; so a
// request that lost its connection waits this long for the better reason.
constexpr Duration kVerdictWait = std::chrono::milliseconds(850);

}  // namespace

void Outcome::set_serving(std::shared_ptr<Lanes> lanes,
                          std::vector<std::shared_ptr<RankPort>> ports, std::string numerics_id) {
  update([&] {
    lanes_ = std::move(lanes);
    ports_ = std::move(ports);
    numerics_id_ = std::move(numerics_id);
    served_ = true;
  });
}

void Outcome::set_failed(Error error) {
  update([&] {
    if (!failure_) failure_ = std::move(error);
  });
}

void Outcome::set_stopped() {
  update([&] { stopped_ = true; });
}

Status Outcome::wait_ready(Duration timeout) {
  std::unique_lock lock(mutex_);
  const bool known =
      changed_.wait_for(lock, timeout, [&] { return served_ || failure_ || stopped_; });
  if (failure_) return *failure_;
  if (!known) return make_error(ErrorCode::deadline_exceeded, "the stages were not ready in time");
  if (stopped_) return make_error(ErrorCode::cancelled, "the deployment was stopped");
  return ok_status();
}

bool Outcome::wait_stopped(Duration timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] { return stopped_; });
}

Error Outcome::why_not_serving() {
  const std::lock_guard lock(mutex_);
  if (failure_) return *failure_;
  if (stopped_) return make_error(ErrorCode::cancelled, "the deployment was stopped");
  return make_error(ErrorCode::overloaded, "the stages are not ready yet");
}

Result<Ok> Outcome::with_reason(Result<Ok> end) {
  if (end.ok()) return end;
  std::unique_lock lock(mutex_);
  if (end.error().code == ErrorCode::disconnected) {
    // One wait for all the requests that the same death has ended.
    const TimePoint now = steady_clock().now();
    if (!verdict_due_) verdict_due_ = now + kVerdictWait;
    changed_.wait_for(lock, std::max(Duration(0), *verdict_due_ - now),
                      [&] { return failure_ || stopped_; });
  }
  if (failure_) return *failure_;
  if (stopped_) return make_error(ErrorCode::cancelled, "the deployment was stopped");
  return end;
}

std::shared_ptr<Lanes> Outcome::lanes() {
  const std::lock_guard lock(mutex_);
  return failure_ || stopped_ ? nullptr : lanes_;
}

std::string Outcome::numerics_id() {
  const std::lock_guard lock(mutex_);
  return numerics_id_;
}

std::vector<std::shared_ptr<RankPort>> Outcome::ports() {
  const std::lock_guard lock(mutex_);
  return failure_ || stopped_ ? std::vector<std::shared_ptr<RankPort>>{} : ports_;
}

void Outcome::drop_ports() {
  std::shared_ptr<Lanes> lanes;  // their end is not for those who hold the lock
  std::vector<std::shared_ptr<RankPort>> ports;
  update([&] {
    lanes.swap(lanes_);
    ports.swap(ports_);
  });
  if (lanes) lanes->close();
}

}  // namespace chainpump::actors
