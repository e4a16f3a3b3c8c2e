#include "gateway/text_stream.h"

#include <algorithm>

namespace chainpump::gateway {
namespace {

/// How many bytes at the end of `text` may be the beginning of a stop string.
size_t held_back(std::string_view text, const std::vector<std::string>& stops) {
  size_t held = 0;
  for (const std::string& stop : stops)
    for (size_t n = std::min(stop.size() - 1, text.size()); n > held; --n)
      if (text.ends_with(std::string_view(stop).substr(0, n))) held = n;
  return held;
}

}  // namespace

void TextStream::push(TokenId token) { pending_ += decoder_.push(token); }

void TextStream::finish(int64_t text_bytes) {
  pending_ += decoder_.finish();
  finished_ = true;
  // What was taken cannot be part of a stop string, so that never more than `pending_` is cut off.
  if (text_bytes >= 0)
    pending_.resize(std::min(pending_.size(),
                             static_cast<size_t>(std::max<int64_t>(0, text_bytes - num_taken_))));
}

std::string TextStream::take() {
  const size_t certain = pending_.size() - (finished_ ? 0 : held_back(pending_, stops_));
  std::string text = pending_.substr(0, certain);
  pending_.erase(0, certain);
  num_taken_ += static_cast<int64_t>(certain);
  return text;
}

}  // namespace chainpump::gateway
