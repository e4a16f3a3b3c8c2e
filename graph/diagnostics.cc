#include "graph/diagnostics.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace chainpump::graph {
namespace {

constexpr size_t kWordMax = 64;  // longer words get no suggestion: the distance is quadratic

/// Insertions, deletions, replacements, and swaps of neighbours.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before, above(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const bool differs = a[i - 1] != b[j - 1];
      row[j] = std::min({row[j - 1] + 1, above[j] + 1, above[j - 1] + differs});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before = std::exchange(above, row);
  }
  return above[b.size()];
}

}  // namespace

void Diagnostics::add(Position at, std::string message) {
  if (full()) {
    ++num_more_;
    return;
  }
  items_.push_back({at, std::move(message)});
}

void Diagnostics::sort() {
  std::stable_sort(items_.begin(), items_.end(),
                   [](const Diagnostic& a, const Diagnostic& b) { return a.at < b.at; });
}

std::string Diagnostics::to_text(std::string_view file_name) const {
  std::string text;
  for (const Diagnostic& item : items_)
    text += fmt::format("{}{}:{}:{}: {}", text.empty() ? "" : "\n", file_name, item.at.line,
                        item.at.column, item.message);
  if (num_more_ > 0) text += fmt::format("\n{}: and {} more", file_name, num_more_);
  return text;
}

std::string_view did_you_mean(std::string_view word,
                              const std::vector<std::string_view>& candidates) {
  if (word.empty() || word.size() > kWordMax) return {};
  size_t best = std::max<size_t>(1, word.size() / 3) + 1;
  std::string_view found;
  for (const std::string_view candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance >= best || distance >= candidate.size()) continue;
    best = distance;
    found = candidate;
  }
  return found;
}

std::string hint(std::string_view word, const std::vector<std::string_view>& candidates) {
  const std::string_view meant = did_you_mean(word, candidates);
  return meant.empty() ? std::string() : fmt::format(", did you mean '{}'?", meant);
}

std::string shown(std::string_view text) {
  constexpr size_t kShownMax = 40;
  std::string out;
  for (const char c : text.substr(0, kShownMax))
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  if (text.size() > kShownMax) {
    // Do not end within a UTF-8 sequence.
    while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xC0) == 0x80) out.pop_back();
    if (!out.empty() && static_cast<unsigned char>(out.back()) >= 0xC0) out.pop_back();
    out += "...";
  }
  return out;
}

}  // namespace chainpump::graph
