// What is wrong with a graph file, and where: all of it at once, bounded, in order of position.
// Plain data; one thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace chainpump::graph {

/// A place in a file, both counted from 1.
struct Position {
  int line = 1;
  int column = 1;
  auto operator<=>(const Position&) const = default;
};

struct Diagnostic {
  Position at;
  std::string message;
};

class Diagnostics {
 public:
  static constexpr size_t kKeptMax = 50;

  void add(Position at, std::string message);
  bool empty() const { return items_.empty(); }
  bool full() const { return items_.size() >= kKeptMax; }
  /// By position; those past kKeptMax are only counted.
  const std::vector<Diagnostic>& items() const { return items_; }
  size_t num_more() const { return num_more_; }
  void sort();
  /// One line each: `file:line:column: message`, then "and N more".
  std::string to_text(std::string_view file_name) const;

 private:
  std::vector<Diagnostic> items_;
  size_t num_more_ = 0;
};

/// The candidate that `word` was probably meant to be, or empty: edit distance of at most a third
/// of its length.
std::string_view did_you_mean(std::string_view word,
                              const std::vector<std::string_view>& candidates);
/// ", did you mean 'x'?" or nothing.
std::string hint(std::string_view word, const std::vector<std::string_view>& candidates);
/// `text` as it may be shown: at most 40 bytes, control characters replaced.
std::string shown(std::string_view text);

}  // namespace chainpump::graph
