// Zeroed memory that the system commits page by page as it is touched, for block pools and scratch
// that are sized for the worst case: start-up does not touch them, idle parts cost nothing.
// One owner; movable. Threads may share the bytes under their user's rules.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace chainpump::models {

class LazyMemory {
 public:
  LazyMemory() = default;
  /// no_room (naming `what`) if the machine could never hold that much, or refuses. bytes >= 0.
  static Result<LazyMemory> reserve(int64_t bytes, std::string_view what);

  LazyMemory(LazyMemory&& other) noexcept;
  LazyMemory& operator=(LazyMemory&& other) noexcept;
  ~LazyMemory();

  /// Aligned to pages.
  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  LazyMemory(std::byte* data, int64_t bytes) : data_(data), bytes_(bytes) {}

  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace chainpump::models
