#include "models/sampling/stop_text.h"

#include <algorithm>

namespace chainpump::models {

StopText::StopText(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_)
    tail_bytes_max_ = std::max(tail_bytes_max_, stop.size() - 1);
}

std::optional<int64_t> StopText::push(std::string_view bytes) {
  const size_t old_bytes = tail_.size();
  tail_ += bytes;
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) {
    // A match must end in the new bytes; what ended before has been reported.
    const size_t from = old_bytes - std::min(old_bytes, stop.size() - 1);
    first = std::min(first, tail_.find(stop, from));
  }
  std::optional<int64_t> found;
  if (first != std::string::npos) found = bytes_before_tail_ + static_cast<int64_t>(first);
  if (tail_.size() > tail_bytes_max_) {
    const size_t excess = tail_.size() - tail_bytes_max_;
    tail_.erase(0, excess);
    bytes_before_tail_ += static_cast<int64_t>(excess);
  }
  return found;
}

}  // namespace chainpump::models
