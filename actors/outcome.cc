#include "actors/outcome.h"

#include <algorithm>
#include <utility>

#include "actors/lanes.h"

namespace chainpump::actors {
namespace {

// A lost connection is noticed before the coordinator can say what died; so whoever asked waits
// this long for the better reason.
constexpr Duration kVerdictWait = std::chrono::milliseconds(850);

}  // namespace

void Outcome::set_serving(std::shared_ptr<Lanes> lanes,
                          std::vector<std::shared_ptr<RankPort>> ports, std::string numerics_id) {
  bool dropped = false;
  update([&] {
    served_ = true;
    dropped = dropped_;
    if (dropped) return;
    lanes_ = lanes;
    ports_ = std::move(ports);
    numerics_id_ = std::move(numerics_id);
  });
  if (dropped) return lanes->close();
  pause_lanes();
}

void Outcome::on_lanes(const std::vector<graph::LaneNews>& news) {
  health_.on_news(news);
  update([&] {
    paused_.clear();
    for (const graph::LaneNews& lane : news) paused_.push_back(!lane.serves);
  });
  pause_lanes();
}

/// As was said last; it may have been said before there were lanes.
void Outcome::pause_lanes() {
  std::shared_ptr<Lanes> lanes;
  std::vector<bool> paused;
  update([&] {
    lanes = lanes_;
    paused = paused_;
  });
  for (size_t i = 0; lanes && i < std::min(paused.size(), lanes->size()); ++i)
    lanes->set_paused(graph::LaneId(static_cast<uint8_t>(i)), paused[i]);
}

void Outcome::set_ports(std::vector<std::shared_ptr<RankPort>> ports) {
  update([&] { ports_.swap(ports); });  // the others' end is not for those who hold the lock
}

void Outcome::set_failed(Error error) {
  update([&] {
    if (!failure_) failure_ = std::move(error);
  });
  tell_lanes_of_end();
}

void Outcome::set_stopped() {
  update([&] { stopped_ = true; });
  tell_lanes_of_end();
}

void Outcome::tell_lanes_of_end() {
  std::shared_ptr<Lanes> lanes;
  {
    const std::lock_guard lock(mutex_);
    lanes = lanes_;
  }
  if (lanes) lanes->deployment_ended();
}

Status Outcome::wait_ready(Duration timeout) {
  std::unique_lock lock(mutex_);
  const bool known =
      changed_.wait_for(lock, timeout, [&] { return served_ || failure_ || stopped_; });
  if (!known) return make_error(ErrorCode::deadline_exceeded, "the stages were not ready in time");
  if (std::optional<Error> why = reason()) return *std::move(why);
  return ok_status();
}

bool Outcome::wait_stopped(Duration timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] { return stopped_; });
}

std::optional<Error> Outcome::reason() const {
  if (failure_) return failure_;
  if (stopped_) return make_error(ErrorCode::cancelled, "the deployment was stopped");
  return std::nullopt;
}

std::optional<Error> Outcome::why_ended() {
  const std::lock_guard lock(mutex_);
  return reason();
}

Error Outcome::why_not_serving() {
  if (std::optional<Error> why = why_ended()) return *std::move(why);
  return make_error(ErrorCode::overloaded, "the stages are not ready yet");
}

Result<Ok> Outcome::with_reason(Result<Ok> end) {
  if (end.ok()) return end;
  if (std::optional<Error> why = why_ended()) return *std::move(why);
  return end;
}

Error Outcome::with_verdict(Error error, Duration patience) {
  std::unique_lock lock(mutex_);
  if (error.code == ErrorCode::disconnected)
    changed_.wait_for(lock, std::min(kVerdictWait, patience), [&] { return failure_ || stopped_; });
  if (std::optional<Error> why = reason()) return *std::move(why);
  return error;
}

std::shared_ptr<Lanes> Outcome::lanes() {
  const std::lock_guard lock(mutex_);
  return reason() ? nullptr : lanes_;
}

std::string Outcome::numerics_id() {
  const std::lock_guard lock(mutex_);
  return numerics_id_;
}

void Outcome::set_planned(std::shared_ptr<const Planned> planned) {
  update([&] { planned_ = std::move(planned); });
}

std::shared_ptr<const Planned> Outcome::planned() {
  const std::lock_guard lock(mutex_);
  return planned_;
}

std::vector<std::shared_ptr<RankPort>> Outcome::ports() {
  const std::lock_guard lock(mutex_);
  return reason() ? std::vector<std::shared_ptr<RankPort>>{} : ports_;
}

void Outcome::drop_ports() {
  std::shared_ptr<Lanes> lanes;  // their end is not for those who hold the lock
  std::vector<std::shared_ptr<RankPort>> ports;
  update([&] {
    dropped_ = true;
    lanes.swap(lanes_);
    ports.swap(ports_);
  });
  if (lanes) lanes->close();
}

}  // namespace chainpump::actors
