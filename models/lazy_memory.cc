#include "models/lazy_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace chainpump::models {

Result<LazyMemory> LazyMemory::reserve(int64_t bytes, std::string_view what) {
  CHECK_GE(bytes, 0);
  if (bytes == 0) return LazyMemory();
  // Reserving would succeed for far more than there is, and end in a kill much later.
  const int64_t machine_bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  if (bytes > machine_bytes) {
    return make_error(ErrorCode::no_room, "{} needs {} bytes; this machine has {}", what, bytes,
                      machine_bytes);
  }
  void* at = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    return make_error(ErrorCode::no_room, "{}: cannot map {} bytes: {}", what, bytes,
                      std::strerror(errno));
  }
  return LazyMemory(static_cast<std::byte*>(at), bytes);
}

LazyMemory::LazyMemory(LazyMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

LazyMemory& LazyMemory::operator=(LazyMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

LazyMemory::~LazyMemory() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
}

}  // namespace chainpump::models
