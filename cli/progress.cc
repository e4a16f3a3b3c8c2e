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

/// "quantizing: 30.1 of 98.4 MB, 12 MB/s, 6 s left".
std::string byte_text(const std::string& what, int64_t done, int64_t total, Duration since) {
  const double rate = static_cast<double>(done) / to_seconds(since);
  return fmt::format("{}: {:.1f} of {:.1f} MB, {:.0f} MB/s, {:.0f} s left", what,
                     static_cast<double>(done) * 1e-6, static_cast<double>(total) * 1e-6,
                     rate * 1e-6, rate > 0 ? static_cast<double>(total - done) / rate : 0.0);
}

// Bytes, rate and time left of some work, rewritten now and then.
struct ByteLine {
  std::string what;
  TimePoint started = steady_clock().now();
  TimePoint shown = started;

  void update(int64_t done, int64_t total) {
    const TimePoint now = steady_clock().now();
    if (now - started < kShowAfter || now - shown < kShowEvery) return;
    shown = now;
    std::fprintf(stderr, "\r\033[K%s", byte_text(what, done, total, now - started).c_str());
    line_shown = true;
  }
};

int64_t sum(const std::vector<int64_t>& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
}

}  // namespace

LoadProgress::LoadProgress(const graph::Plan& plan, bool has_line)
    : done_(static_cast<size_t>(num_ranks(plan))),
      what_(num_lanes(plan) > 1
                ? fmt::format("loading {} lanes of {} stages", num_lanes(plan), plan.stages.size())
                : fmt::format("loading {} stages", plan.stages.size())),
      has_line_(has_line && progress_is_rewritten()) {
  for (int32_t rank = 0; rank < num_ranks(plan); ++rank) {
    const graph::RankPlace place = place_of(plan, RankId(static_cast<uint32_t>(rank)));
    total_.push_back(plan.stages[static_cast<size_t>(place.stage.value)].weight_bytes);
  }
}

void LoadProgress::update(RankId rank, int64_t bytes_done, int64_t bytes_total) {
  const std::lock_guard lock(mutex_);
  if (rank.value >= done_.size()) return;
  done_[rank.value] = bytes_done;
  total_[rank.value] = bytes_total;
  last_ = steady_clock().now();
  if (!has_line_ || last_ - started_ < kShowAfter || last_ - shown_ < kShowEvery) return;
  shown_ = last_;
  const std::string line = byte_text(what_, sum(done_), sum(total_), last_ - started_);
  std::fprintf(stderr, "\r\033[K%s", line.c_str());
  line_shown = true;
}

std::string LoadProgress::text() const {
  const std::lock_guard lock(mutex_);
  if (last_ == started_) return {};
  return byte_text(what_, sum(done_), sum(total_), steady_clock().now() - started_);
}

TimePoint LoadProgress::last() const {
  const std::lock_guard lock(mutex_);
  return last_;
}

std::function<void(RankId, int64_t, int64_t)> load_progress(const graph::Plan& plan) {
  if (!progress_is_rewritten()) return {};
  const auto progress = std::make_shared<LoadProgress>(plan);
  return [progress](RankId rank, int64_t bytes_done, int64_t bytes_total) {
    progress->update(rank, bytes_done, bytes_total);
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
