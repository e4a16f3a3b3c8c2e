#include "graph/failure_detector.h"

#include <algorithm>

namespace chainpump::graph {

FailureDetectorLimits failure_limits(const Plan& plan) {
  double turns = 1;
  for (const NodePlan& node : plan.nodes)
    turns = std::max(turns, num_compute_threads(plan, node.name) / (2.0 * node.num_cores));
  FailureDetectorLimits limits;
  limits.hang_max = std::chrono::duration_cast<Duration>(limits.hang_max * turns);
  return limits;
}

void FailureDetector::watch(ProcessId process, TimePoint now) {
  if (watched_.empty()) next_look_ = now + limits_.period;
  watched_[process] = {.since = now};
}

void FailureDetector::on_answer(ProcessId process, std::optional<uint64_t> count, TimePoint now) {
  const auto found = watched_.find(process);
  if (found == watched_.end()) return;
  Watched& watched = found->second;
  watched.asked = false;
  if (!count) return;
  watched.answers = true;
  if (watched.count == count) return;
  watched = {.since = now, .count = count};
}

FailureDetector::Looked FailureDetector::on_time(TimePoint now) {
  Looked looked;
  if (watched_.empty() || now < next_look_) return looked;
  const Duration late = now - next_look_;
  next_look_ = now + limits_.period;
  for (auto it = watched_.begin(); it != watched_.end();) {
    auto& [process, watched] = *it;
    if (late > limits_.late_max) watched.since = std::min(now, watched.since + late);
    if (now - watched.since > limits_.hang_max) {
      looked.hung.push_back({process, now - watched.since, watched.answers});
      it = watched_.erase(it);
      continue;
    }
    if (!watched.asked) looked.ask.push_back(process);
    watched.asked = true;
    ++it;
  }
  return looked;
}

std::optional<TimePoint> FailureDetector::next_deadline() const {
  if (watched_.empty()) return std::nullopt;
  return next_look_;
}

}  // namespace chainpump::graph
