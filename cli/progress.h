// Progress of long work on standard error, one line that is rewritten; nothing where standard error
// is no terminal, where nothing else is said. Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "graph/plan.h"

namespace chainpump::cli {

/// The weights of all stages together, as they are fetched and loaded.
class LoadProgress {
 public:
  /// `has_line`: it is shown, where there is a terminal.
  explicit LoadProgress(const graph::Plan& plan, bool has_line = true);
  void update(RankId rank, int64_t bytes_done, int64_t bytes_total);
  /// Bytes, rate and time left; empty: nothing has come.
  std::string text() const;
  /// When something came last, or from when it was awaited.
  TimePoint last() const;

 private:
  mutable std::mutex mutex_;
  std::vector<int64_t> done_;  // by rank
  std::vector<int64_t> total_;
  std::string what_;
  const bool has_line_;
  TimePoint started_ = steady_clock().now();
  TimePoint last_ = started_;
  TimePoint shown_ = started_;
};

/// The same as a function.
std::function<void(RankId rank, int64_t bytes_done, int64_t bytes_total)> load_progress(
    const graph::Plan& plan);

/// The same for one piece of work, `what`: "quantizing".
std::function<void(int64_t bytes_done, int64_t bytes_total)> byte_progress(std::string what);

/// One that counts other things: rewrites the line, on a terminal; elsewhere adds one.
void show_progress(const std::string& line);
bool progress_is_rewritten();

/// Clears the line, if there is one.
void end_progress();

}  // namespace chainpump::cli
