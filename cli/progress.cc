#include "cli/progress.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <mutex>
#include <vector>

#include "base/clock.h"

namespace chainpump::cli {
namespace {

// A load that is over before anybody could read of it shows nothing.
constexpr Duration kShowAfter = std::chrono::milliseconds(300);
constexpr Duration kShowEvery = std::chrono::milliseconds(100);

std::atomic<bool> line_shown{false};

struct LoadLine {
  std::mutex mutex;
  std::vector<int64_t> done;
  std::vector<int64_t> total;
  TimePoint started = steady_clock().now();
  TimePoint shown = started;

  void update(size_t stage, int64_t bytes_done, int64_t bytes_total) {
    const std::lock_guard lock(mutex);
    done[stage] = bytes_done;
    total[stage] = bytes_total;
    const TimePoint now = steady_clock().now();
    if (now - started < kShowAfter || now - shown < kShowEvery) return;
    shown = now;
    int64_t all_done = 0;
    int64_t all = 0;
    for (const int64_t d : done) all_done += d;
    for (const int64_t t : total) all += t;
    const double rate = static_cast<double>(all_done) / to_seconds(now - started);
    std::fprintf(stderr, "\r\033[Kloading %zu stages: %.1f of %.1f MB, %.0f MB/s, %.0f s left",
                 done.size(), static_cast<double>(all_done) * 1e-6, static_cast<double>(all) * 1e-6,
                 rate * 1e-6, rate > 0 ? static_cast<double>(all - all_done) / rate : 0.0);
    line_shown = true;
  }
};

}  // namespace

std::function<void(StageIndex, int64_t, int64_t)> load_progress(const graph::Plan& plan) {
  if (::isatty(STDERR_FILENO) == 0) return {};
  const auto line = std::make_shared<LoadLine>();
  line->done.resize(plan.stages.size());
  for (const graph::StagePlan& stage : plan.stages) line->total.push_back(stage.weight_bytes);
  return [line](StageIndex stage, int64_t bytes_done, int64_t bytes_total) {
    line->update(static_cast<size_t>(stage.value), bytes_done, bytes_total);
  };
}

void end_progress() {
  if (line_shown.exchange(false)) std::fprintf(stderr, "\r\033[K");
}

}  // namespace chainpump::cli
