// Zeroed memory aligned to cache lines, in huge pages where it is large: a sweep over weights then
// misses no page translations. One owner; the bytes may be shared between threads by its user.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/check.h"

namespace chainpump::kernels::cpu {

struct ReleaseBytes {
  size_t mapped = 0;  // 0: from the heap
  void operator()(std::byte* at) const {
    if (mapped == 0)
      std::free(at);
    else
      munmap(at, mapped);
  }
};

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  /// Large buffers come zeroed from the system and are not touched here, so that the threads that
  /// fill them share the page faults.
  explicit AlignedBuffer(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    if (bytes < kHuge) {
      data_.reset(static_cast<std::byte*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
      CHECK(data_ != nullptr);
      std::memset(data_.get(), 0, bytes);
      return;
    }
    data_.get_deleter().mapped = (bytes + kHuge - 1) / kHuge * kHuge + kHuge;
    void* at = mmap(nullptr, data_.get_deleter().mapped, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    static_cast<void>(madvise(at, data_.get_deleter().mapped, MADV_HUGEPAGE));
    data_.reset(static_cast<std::byte*>(at));
  }
  std::byte* data() { return bytes_ < kHuge ? data_.get() : align(data_.get()); }
  const std::byte* data() const { return bytes_ < kHuge ? data_.get() : align(data_.get()); }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kHuge = size_t{2} << 20;
  static std::byte* align(std::byte* at) {
    const auto address = reinterpret_cast<uintptr_t>(at);
    return at + ((address + kHuge - 1) / kHuge * kHuge - address);
  }
  size_t bytes_ = 0;
  std::unique_ptr<std::byte, ReleaseBytes> data_;
};

}  // namespace chainpump::kernels::cpu
