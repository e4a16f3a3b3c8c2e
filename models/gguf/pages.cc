#include "models/gguf/pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace chainpump::models {
namespace {

uintptr_t page_bytes() {
  static const auto bytes = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

void advise(uintptr_t begin, uintptr_t end, int advice) {
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, advice);
}

}  // namespace

void advise_pages(std::span<const std::byte> bytes, int advice) {
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data());
  advise(begin / page_bytes() * page_bytes(), begin + bytes.size(), advice);
}

void drop_pages(std::span<const std::byte> bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data());
  const uintptr_t page = page_bytes();
  advise((begin + page - 1) / page * page, (begin + bytes.size()) / page * page, MADV_DONTNEED);
}

}  // namespace chainpump::models
