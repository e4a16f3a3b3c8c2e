// Finds stop strings in generated text as it grows, across token boundaries. Keeps only the tail
// that a later match could begin in. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace chainpump::models {

class StopText {
 public:
  explicit StopText(std::vector<std::string> stops);

  /// Takes the next bytes of the text. If they complete a stop string: how many bytes of the whole
  /// text stand before the first one.
  std::optional<int64_t> push(std::string_view bytes);

 private:
  std::vector<std::string> stops_;
  size_t tail_bytes_max_ = 0;
  std::string tail_;
  int64_t bytes_before_tail_ = 0;
};

}  // namespace chainpump::models
