// A sequence's tokens as it grows by one at a time. The newest stand with their owner and go to the
// rest a few at once: of thousands of sequences each has its tokens on a page of its own, and to
// touch all of those in every step costs more than the step's rules do. Pure; one thread.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/ids.h"

namespace chainpump::graph {

class TokenLog {
 public:
  TokenLog() = default;
  explicit TokenLog(std::vector<TokenId> tokens) : older_(std::move(tokens)) {
    if (!older_.empty()) last_ = older_.back();
  }

  int32_t size() const { return static_cast<int32_t>(older_.size()) + num_newest_; }
  /// Of one that is not empty.
  TokenId back() const { return last_; }
  void push_back(TokenId token) {
    if (num_newest_ == kNewest) gather();
    newest_[static_cast<size_t>(num_newest_++)] = token;
    last_ = token;
  }
  /// All of them; valid until the next push_back().
  const std::vector<TokenId>& all() {
    gather();
    return older_;
  }

 private:
  static constexpr int32_t kNewest = 8;  // so that this fills a cache line

  void gather() {
    older_.insert(older_.end(), newest_.begin(), newest_.begin() + num_newest_);
    num_newest_ = 0;
  }

  std::vector<TokenId> older_;
  int32_t num_newest_ = 0;
  TokenId last_ = -1;
  std::array<TokenId, kNewest> newest_{};
};
static_assert(sizeof(TokenLog) == 64);

}  // namespace chainpump::graph
