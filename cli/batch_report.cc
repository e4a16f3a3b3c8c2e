#include "cli/batch_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace chainpump::cli {
namespace {

double rate(double count, Duration elapsed) {
  return elapsed.count() > 0 ? count / to_seconds(elapsed) : 0;
}

std::string failed_text(const BatchCounts& counts) {
  return counts.failed == 0 ? std::string() : fmt::format(" ({} with an error)", counts.failed);
}

}  // namespace

std::string time_text(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(std::clamp(seconds, 0.0, 3.6e9)));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

std::string progress_text(const BatchCounts& counts, Duration elapsed) {
  const double lines_per_second = rate(static_cast<double>(counts.done), elapsed);
  const size_t left = counts.lines - counts.before - counts.done;
  std::string text =
      fmt::format("{} of {} lines{}, {:.1f} lines/s, {:.0f} tokens/s", counts.before + counts.done,
                  counts.lines, failed_text(counts), lines_per_second,
                  rate(static_cast<double>(counts.tokens), elapsed));
  if (lines_per_second > 0)
    text += fmt::format(", {} left", time_text(static_cast<double>(left) / lines_per_second));
  return text;
}

std::string summary_text(const BatchCounts& counts, Duration elapsed) {
  const size_t done = counts.before + counts.done;
  std::string text = done == counts.lines
                         ? fmt::format("all {} lines are done", done)
                         : fmt::format("{} of {} lines are done", done, counts.lines);
  text += fmt::format(": {} in this run{}, {} tokens in {:.1f} s", counts.done, failed_text(counts),
                      counts.tokens, to_seconds(elapsed));
  if (counts.done > 0)
    text += fmt::format(", {:.1f} lines/s, {:.1f} tokens/s",
                        rate(static_cast<double>(counts.done), elapsed),
                        rate(static_cast<double>(counts.tokens), elapsed));
  return text;
}

}  // namespace chainpump::cli
