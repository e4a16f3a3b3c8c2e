#include "graph/slow_watch.h"

#include <algorithm>
#include <utility>

namespace chainpump::graph {
namespace {

constexpr Duration kSampleEvery = std::chrono::milliseconds(250);

}  // namespace

void SlowWatch::on_answer(ProcessId process, const StepTotals& totals, TimePoint now) {
  Rank& rank = ranks_[process];
  if (rank.samples.empty() || totals.steps < rank.latest.steps) {
    rank = {.samples = {{now, totals}}, .latest = totals};
    return;
  }
  rank.latest = totals;
  std::deque<Sample>& samples = rank.samples;
  if (now - samples.back().at >= kSampleEvery) samples.push_back({now, totals});
  const auto is_long = [&](const Sample& begin) {
    return now - begin.at >= limits_.window &&
           totals.steps >= begin.totals.steps + limits_.steps_min;
  };
  while (samples.size() > 1 &&
         (is_long(samples[1]) || now - samples.front().at > limits_.window_max))
    samples.pop_front();
  rank.pace = Pace::unknown;
  if (is_long(samples.front())) judge(rank);
}

void SlowWatch::judge(Rank& rank) const {
  const StepTotals& begin = rank.samples.front().totals;
  const uint64_t steps = rank.latest.steps - begin.steps;
  const Duration expected = rank.latest.expected - begin.expected;
  const Duration measured = rank.latest.measured - begin.measured;
  rank.times = to_seconds(measured) / std::max(to_seconds(expected), 1e-9);
  if (2 * (rank.latest.slow - begin.slow) > steps)
    rank.pace = Pace::slow;
  else
    rank.pace = 2 * (rank.latest.behind - begin.behind) > steps ? Pace::behind : Pace::calm;
}

SlowWatch::Pace SlowWatch::pace_of(ProcessId process) const {
  const auto found = ranks_.find(process);
  return found == ranks_.end() ? Pace::unknown : found->second.pace;
}

std::vector<SlowWatch::Change> SlowWatch::look(const std::vector<std::vector<ProcessId>>& lanes) {
  std::vector<Change> changes;
  for (const std::vector<ProcessId>& lane : lanes) {
    const bool is_calm = std::any_of(lane.begin(), lane.end(), [this](ProcessId process) {
      return pace_of(process) == Pace::calm;
    });
    for (const ProcessId process : lane) {
      const auto found = ranks_.find(process);
      if (found == ranks_.end() || found->second.pace == Pace::unknown) continue;
      Rank& rank = found->second;
      const bool is_slow = rank.pace == Pace::slow && (is_calm || rank.is_slow);
      if (std::exchange(rank.is_slow, is_slow) != is_slow) changes.push_back({process, is_slow});
    }
  }
  return changes;
}

std::optional<double> SlowWatch::slow_times(ProcessId process) const {
  const auto found = ranks_.find(process);
  if (found == ranks_.end() || !found->second.is_slow) return std::nullopt;
  return found->second.times;
}

}  // namespace chainpump::graph
