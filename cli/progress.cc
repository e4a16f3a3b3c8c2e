#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace chainpump::cli {
namespace {

// A load that is over before anybody could read of it shows nothing.
constexpr Duration kShowAfter = std::chrono::milliseconds(300);
constexpr Duration kShowEvery = std::chrono::milliseconds(100);

std::atomic<bool> line_shown{false};

// Bytes, rate and time left of some work, rewritten now and then.
struct ByteLine {
  std::string what;
  TimePoint started = steady_clock().now();
  TimePoint shown = started;

  void update(int64_t done, int64_t total) {
    const TimePoint now = steady_clock().now();
    if (now - started < kShowAfter || now - shown < kShowEvery) return;
    shown = now;
    const double rate = static_cast<double>(done) / to_seconds(now - started);
    std::fprintf(stderr, "\r\033[K%s: %.1f of %.1f MB, %.0f MB/s, %.0f s left", what.c_str(),
                 static_cast<double>(done) * 1e-6, static_cast<double>(total) * 1e-6, rate * 1e-6,
                 rate > 0 ? static_cast<double>(total - done) / rate : 0.0);
    line_shown = true;
  }
};

struct LoadLine {
  std::mutex mutex;
  std::vector<int64_t> done;
  std::vector<int64_t> total;
  ByteLine line;

  void update(size_t stage, int64_t bytes_done, int64_t bytes_total) {
    const std::lock_guard lock(mutex);
    done[stage] = bytes_done;
    total[stage] = bytes_total;
    line.update(std::accumulate(done.begin(), done.end(), int64_t{0}),
                std::accumulate(total.begin(), total.end(), int64_t{0}));
  }
};

}  // namespace

std::function<void(RankId, int64_t, int64_t)> load_progress(const graph::Plan& plan) {
  if (!progress_is_rewritten()) return {};
  const auto line = std::make_shared<LoadLine>();
  line->done.resize(static_cast<size_t>(num_ranks(plan)));
  line->line.what = num_lanes(plan) > 1 ? fmt::format("loading {} lanes of {} stages",
                                                      num_lanes(plan), plan.stages.size())
                                        : fmt::format("loading {} stages", plan.stages.size());
  for (int32_t rank = 0; rank < num_ranks(plan); ++rank) {
    const graph::RankPlace place = place_of(plan, RankId(static_cast<uint32_t>(rank)));
    line->total.push_back(plan.stages[static_cast<size_t>(place.stage.value)].weight_bytes);
  }
  return [line](RankId rank, int64_t bytes_done, int64_t bytes_total) {
    line->update(rank.value, bytes_done, bytes_total);
  };
}

std::function<void(int64_t, int64_t)> byte_progress(std::string what) {
  if (!progress_is_rewritten()) return {};
  const auto line = std::make_shared<ByteLine>();
  line->what = std::move(what);
  return [line](int64_t bytes_done, int64_t bytes_total) { line->update(bytes_done, bytes_total); };
}

bool progress_is_rewritten() {
  static const bool is_terminal = ::isatty(STDERR_FILENO) != 0;
  return is_terminal;
}

void show_progress(const std::string& line) {
  line_shown = progress_is_rewritten();
  std::fprintf(stderr, line_shown ? "\r\033[K%s" : "%s\n", line.c_str());
}

void end_progress() {
  if (line_shown.exchange(false)) std::fprintf(stderr, "\r\033[K");
}

}  // namespace chainpump::cli
